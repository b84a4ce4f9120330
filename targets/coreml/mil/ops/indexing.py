"""Operations that pick or replace elements by index."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from kobako.pipeline.errors import BadArtifact
from torch.nn import functional

from ..site import Builder, Env, Site, Step

Tensor = torch.Tensor
Slices = tuple[slice, ...]


def slices(site: Site, shape: tuple[int, ...]) -> tuple[Callable[[Env], Slices], list[int]]:
    """The slices that begin, end, stride and their masks describe, and the axes to squeeze.

    Constant ones are made at compile time.
    """
    rank = len(shape)
    begin, end = site.numbers("begin"), site.numbers("end")
    stride = site.value("stride", None) or [1] * rank
    masks = [site.value(key, None) or [False] * rank for key in ("begin_mask", "end_mask", "squeeze_mask")]
    if any(step < 1 for step in stride):
        raise site.error("negative strides are not supported")
    squeezed = [axis for axis in range(rank) if masks[2][axis]]

    def make(env: Env) -> Slices:
        limits = zip(begin(env), end(env), stride, shape, *masks, strict=True)
        return tuple(one_slice(*limit) for limit in limits)

    if all(not site.has(key) or site.is_constant(key) for key in ("begin", "end")):
        fixed = make([])
        return lambda env: fixed, squeezed
    # All layers write at the same place, so it is worked out once per run.
    where = site.derived(("slices", site.arg("begin"), site.arg("end"), shape, str(stride), str(masks)), make)
    return lambda env: env[where], squeezed


def one_slice(begin: int, end: int, step: int, size: int, *masks: bool) -> slice:
    """One axis' slice, counted from the front. Raises BadArtifact when it leaves the axis, which torch would clamp."""
    from_start, to_end, squeeze = masks
    first = 0 if from_start else begin + size if begin < 0 else begin
    last = first + 1 if squeeze else size if to_end else end + size if end < 0 else end
    if not 0 <= first <= last <= size:
        raise BadArtifact(f"elements {first}…{last} of an axis of {size} were asked for.", "Export the model again.")
    return slice(first, last, step)


def slice_by_index(site: Site) -> Step:
    """A strided part."""
    x = site.arg("x")
    make, squeezed = slices(site, site.shape("x"))
    if squeezed:
        axes = tuple(squeezed)
        return lambda env: env[x][make(env)].squeeze(axes)
    return lambda env: env[x][make(env)]


def slice_by_size(site: Site) -> Step:
    """A part given by its begin and size; -1 means to the end."""
    x, begin, size = site.arg("x"), site.numbers("begin"), site.numbers("size")

    def step(env: Env) -> Tensor:
        picks = zip(begin(env), size(env), strict=True)
        return env[x][tuple(slice(b, None if s == -1 else b + s) for b, s in picks)]

    return step


def slice_update(site: Site) -> Step:
    """The input with a strided part replaced; a state nobody else looks at is changed where it lies."""
    overwrite = site.inplace("x")
    x, update = site.wide("x"), site.wide("update")
    make, squeezed = slices(site, site.shape("x"))
    if squeezed:
        raise site.error("squeeze_mask is not supported")
    site.wide_output = True

    def step(env: Env) -> Tensor:
        result: Tensor = env[x] if overwrite else env[x].clone()
        result[make(env)] = env[update]
        return result

    return step


def gather(site: Site) -> Step:
    """Rows along one axis."""
    indices, axis, size = site.arg("indices"), site.value("axis", 0), site.shape("x")[site.value("axis", 0)]
    if site.value("batch_dims", 0):
        raise site.error("batch_dims is not supported")
    if axis == 0 and (rows := site.rows("x")):
        return lambda env: stored_rows(rows, env[indices], size)
    x = site.arg("x")

    def step(env: Env) -> Tensor:
        picked = env[indices]
        flat = picked.reshape(-1)
        flat = torch.where(flat < 0, flat + size, flat)
        rows = env[x].index_select(axis, flat)
        return rows.reshape(rows.shape[: axis % env[x].dim()] + picked.shape + rows.shape[axis % env[x].dim() + 1 :])

    return step


def stored_rows(rows: Callable[[list[int]], Tensor], picked: Tensor, size: int) -> Tensor:
    """Rows of a stored matrix, in the shape of the indices and one axis more; each is made once."""
    numbers, places = torch.where(picked < 0, picked + size, picked).reshape(-1).unique(return_inverse=True)
    return rows(numbers.tolist())[places].reshape(*picked.shape, -1)


def gather_along_axis(site: Site) -> Step:
    """One element per index, the other coordinates kept."""
    x, indices, axis = site.arg("x"), site.arg("indices"), site.value("axis", 0)
    return lambda env: torch.gather(env[x], axis, env[indices].long())


def gather_nd(site: Site) -> Step:
    """Slices by coordinate vectors in the last axis of the indices."""
    x, indices = site.arg("x"), site.arg("indices")
    if site.value("batch_dims", 0):
        raise site.error("batch_dims is not supported")
    return lambda env: env[x][tuple(env[indices].long().unbind(-1))]


def one_hot(site: Site) -> Step:
    """One-hot vectors along a new last axis."""
    indices, size = site.arg("indices"), site.value("one_hot_vector_size")
    on, off, dtype = site.value("on_value", 1), site.value("off_value", 0), site.dtype
    if site.value("axis", -1) != -1:
        raise site.error("only the last axis is supported")
    return lambda env: (functional.one_hot(env[indices].long(), size) * (on - off) + off).to(dtype)


OPS: Mapping[str, Builder] = {
    "slice_by_index": slice_by_index, "slice_by_size": slice_by_size, "slice_update": slice_update, "gather": gather,
    "gather_along_axis": gather_along_axis, "gather_nd": gather_nd, "one_hot": one_hot,
}  # fmt: skip
