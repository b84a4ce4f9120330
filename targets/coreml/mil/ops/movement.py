"""Operations that arrange elements anew and compute nothing; states too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from ..site import Builder, Site, Step

Tensor = torch.Tensor


def reshape(site: Site) -> Step:
    """To a shape in which 0 copies the input's size and -1 is inferred."""
    x, shape = site.arg("x"), site.numbers("shape")

    def step(env: list[Any]) -> Tensor:
        value = env[x]
        return value.reshape([value.shape[i] if size == 0 else size for i, size in enumerate(shape(env))])

    declared = site.kind.shape
    if -1 in declared:
        return step
    return lambda env: env[x].reshape(declared)


def transpose(site: Site) -> Step:
    """Permute axes."""
    x, order = site.arg("x"), site.value("perm")
    return lambda env: env[x].permute(order)


def expand_dims(site: Site) -> Step:
    """Insert axes of size one at positions of the result."""
    x = site.arg("x")
    rank = len(site.shape("x")) + len(site.value("axes"))
    axes = sorted(axis % rank for axis in site.value("axes"))

    def step(env: list[Any]) -> Tensor:
        value = env[x]
        for axis in axes:
            value = value.unsqueeze(axis)
        return value

    return step


def squeeze(site: Site) -> Step:
    """Remove axes of size one: those named, or all."""
    x, axes = site.arg("x"), site.value("axes", None)
    chosen = axes if axes is not None else [i for i, size in enumerate(site.shape("x")) if size == 1]
    return lambda env: env[x].squeeze(tuple(chosen))


def concat(site: Site) -> Step:
    """Join along one axis."""
    values, axis = site.args("values"), site.value("axis")
    if site.value("interleave", False):
        raise site.error("interleaving is not supported")
    if len(values) == 2:
        a, b = values
        return lambda env: torch.cat((env[a], env[b]), axis)
    return lambda env: torch.cat([env[value] for value in values], axis)


def stack(site: Site) -> Step:
    """Join along a new axis."""
    values, axis = site.args("values"), site.value("axis")
    return lambda env: torch.stack([env[value] for value in values], axis)


def split(site: Site) -> Step:
    """Cut along one axis, in equal parts or in given sizes."""
    x, axis = site.arg("x"), site.value("axis")
    sizes = site.value("split_sizes", None)
    if sizes is None:
        whole = site.shape("x")[axis]
        sizes = [whole // site.value("num_splits")] * site.value("num_splits")
    return lambda env: torch.split(env[x], sizes, axis)


def tile(site: Site) -> Step:
    """Repeat along every axis."""
    x, reps = site.arg("x"), site.numbers("reps")
    return lambda env: env[x].repeat(reps(env))


def pad(site: Site) -> Step:
    """Pad with a constant, by reflection or by repeating the edge; `pad` begins with the first axis padded."""
    x, widths = site.arg("x"), site.value("pad")
    mode = str(site.value("mode", "constant"))
    name = {"constant": "constant", "reflect": "reflect", "replicate": "replicate"}.get(mode)
    if name is None:
        raise site.error(f"padding mode {mode} is not supported")
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    flat = [width for pair in reversed(pairs) for width in pair]
    fill = site.value("constant_val", 0.0) if name == "constant" else None
    return lambda env: functional.pad(env[x], flat, mode=name, value=fill)


def fill(site: Site) -> Step:
    """A tensor of one value."""
    shape, value, dtype = site.numbers("shape"), site.value("value", 0.0), site.dtype
    return lambda env: torch.full(shape(env), value, dtype=dtype)


def fill_like(site: Site) -> Step:
    """A tensor of one value, as large as another."""
    like, value, dtype = site.arg("ref_tensor"), site.value("value", 0.0), site.dtype
    return lambda env: torch.full(env[like].shape, value, dtype=dtype)


def shape_of(site: Site) -> Step:
    """The input's shape."""
    x = site.arg("x")
    return lambda env: torch.tensor(env[x].shape, dtype=torch.int32)


def range_1d(site: Site) -> Step:
    """Numbers from `start` to before `end`."""
    start, end, stride, dtype = site.arg("start"), site.arg("end"), site.arg("step"), site.dtype
    return lambda env: torch.arange(env[start].item(), env[end].item(), env[stride].item(), dtype=dtype)


def flip(site: Site) -> Step:
    """Reverse along axes."""
    x = site.arg("x")
    axes = site.value("axes", None) or list(range(len(site.shape("x"))))
    return lambda env: env[x].flip(axes)


def band_part(site: Site) -> Step:
    """Keep `lower` diagonals below and `upper` above the main one; -1 keeps all."""
    x, lower, upper = site.arg("x"), site.value("lower", -1), site.value("upper", -1)

    def step(env: list[Any]) -> Tensor:
        kept = env[x] if lower < 0 else env[x].triu(-lower)
        return kept if upper < 0 else kept.tril(upper)

    return step


def read_state(site: Site) -> Step:
    """The state's present value, in wide form."""
    states, name = site.states, site.name("input")
    site.wide_output = True
    return lambda env: states[name]


def write_state(site: Site) -> Step:
    """Make a value the state's."""
    states, name, data = site.states, site.name("input"), site.wide("data")

    def step(env: list[Any]) -> None:
        states[name] = env[data]

    return step


OPS: Mapping[str, Builder] = {
    "reshape": reshape, "transpose": transpose, "expand_dims": expand_dims, "squeeze": squeeze, "concat": concat,
    "stack": stack, "split": split, "tile": tile, "pad": pad, "fill": fill, "fill_like": fill_like, "shape": shape_of,
    "range_1d": range_1d, "reverse": flip, "band_part": band_part, "read_state": read_state, "write_state": write_state,
}  # fmt: skip
