"""Operations that sum or compare along axes. PyTorch sums float16 in float32 and rounds once, as is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from ..site import Builder, Site, Step

Tensor = torch.Tensor


def reduce(f: Callable[[Tensor, list[int], bool], Tensor]) -> Builder:
    """A reduction over `axes` (all, when there are none)."""

    def build(site: Site) -> Step:
        x = site.arg("x")
        axes = site.value("axes", None) or list(range(len(site.shape("x"))))
        keep = bool(site.value("keep_dims", False))
        return lambda env: f(env[x], axes, keep)

    return build


def several(f: Callable[[Tensor, list[int], bool], Tensor]) -> Builder:
    """A reduction made of several PyTorch operations, in float32."""

    def build(site: Site) -> Step:
        x = site.wide("x")
        axes = site.value("axes", None) or list(range(len(site.shape("x"))))
        keep = bool(site.value("keep_dims", False))
        return site.rounded(lambda env: f(env[x], axes, keep))

    return build


def argument(f: Callable[..., Tensor]) -> Builder:
    """argmax or argmin along one axis, as int32."""

    def build(site: Site) -> Step:
        x, axis, keep = site.arg("x"), site.value("axis", -1), bool(site.value("keep_dims", False))
        return lambda env: f(env[x], dim=axis, keepdim=keep).to(torch.int32)

    return build


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Product over several axes."""
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(dim=axis, keepdim=keep)
    return x


def softmax(site: Site) -> Step:
    """Softmax along one axis."""
    x, axis = site.arg("x"), site.value("axis", -1)
    return lambda env: torch.softmax(env[x], axis)


def layer_norm(site: Site) -> Step:
    """Layer normalization; over trailing axes by PyTorch's own kernel, otherwise spelled out."""
    x, epsilon = site.wide("x"), site.value("epsilon", 1e-5)
    shape = site.shape("x")
    axes = sorted(axis % len(shape) for axis in site.value("axes", None) or range(len(shape)))
    gamma = site.wide("gamma") if site.has("gamma") else None
    beta = site.wide("beta") if site.has("beta") else None
    if axes != list(range(len(shape) - len(axes), len(shape))):
        raise site.error(f"it normalizes axes {axes} of {len(shape)}; only trailing axes are supported")
    sizes = [shape[axis] for axis in axes]

    def step(env: list[Any]) -> Tensor:
        weight = None if gamma is None else env[gamma]
        bias = None if beta is None else env[beta]
        return functional.layer_norm(env[x], sizes, weight, bias, epsilon)

    return site.rounded(step)


def cumsum(site: Site) -> Step:
    """Cumulative sum along one axis."""
    x, axis = site.wide("x"), site.value("axis", 0)
    if site.value("exclusive", False) or site.value("reverse", False):
        raise site.error("exclusive and reverse sums are not supported")
    dtype = torch.int32 if site.dtype == torch.int32 else torch.float32
    return site.rounded(lambda env: torch.cumsum(env[x], axis, dtype=dtype))


def topk(site: Site) -> Step:
    """The k largest (or smallest) along one axis: values and int32 indices."""
    x, k, axis = site.arg("x"), site.value("k", 1), site.value("axis", -1)
    largest = not site.value("ascending", False)

    def step(env: list[Any]) -> tuple[Tensor, Tensor]:
        values, indices = torch.topk(env[x], k, dim=axis, largest=largest)
        return values, indices.to(torch.int32)

    return step


OPS: Mapping[str, Builder] = {
    "reduce_max": reduce(torch.amax),
    "reduce_min": reduce(torch.amin),
    "reduce_sum": reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "reduce_mean": reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "reduce_sum_square": several(lambda x, axes, keep: x.square().sum(axes, keep)),
    "reduce_l2_norm": several(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "reduce_l1_norm": several(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "reduce_log_sum_exp": several(torch.logsumexp),
    "reduce_prod": several(product),
    "reduce_argmax": argument(torch.argmax), "reduce_argmin": argument(torch.argmin),
    "softmax": softmax, "layer_norm": layer_norm, "cumsum": cumsum, "topk": topk,
}  # fmt: skip
