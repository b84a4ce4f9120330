"""Products: accumulated in float32, rounded once at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.nn import functional

from ..site import Builder, Env, Site, Step

Tensor = torch.Tensor
CLOSED = -9000.0  # a score this much lower than another has a weight of exactly zero, in float32 too
PART_VALUES = 1 << 21  # so much of a matrix is in float32 at a time: eight megabytes


@dataclass(frozen=True)
class Product:
    """``x · weightᵀ + bias``, in one run or in several: the matrix is then widened once.

    Attributes:
        x, bias: their slots; `bias` is wide.
        weight: the matrix ``[O, I]``.
        narrow: whether the result is rounded to float16.
        single: whether `x` is one row, narrow.
    """

    x: int
    weight: Callable[[Env], Any]
    bias: int | None
    narrow: bool
    single: bool

    def __call__(self, env: Env) -> Tensor:
        return functional.linear(env[self.x], self.weight(env)) if self.single else self._of(env[self.x], env)

    def together(self, envs: Sequence[Env]) -> list[Tensor]:
        """The results of several runs."""
        return list(self._of(torch.stack([env[self.x] for env in envs]), envs[0]).unbind())

    def _of(self, rows: Tensor, env: Env) -> Tensor:
        x, weight, bias = rows.float(), self.weight(env), None if self.bias is None else env[self.bias]
        made = torch.empty(*x.shape[:-1], len(weight), dtype=torch.float16 if self.narrow else torch.float32)
        step = max(1, PART_VALUES // weight.shape[1])
        for begin in range(0, len(weight), step):
            part = slice(begin, begin + step)
            made[..., part] = functional.linear(x, weight[part].float(), None if bias is None else bias[part])
        return made


def linear(site: Site) -> Step:
    """``x · weightᵀ + bias``.

    Weights stay in float16, which halves what a single token must read: PyTorch's product of a float16 matrix and one
    float16 row accumulates in float32. For several rows it is slow, so there the matrix is widened for the moment.
    """
    bias = site.wide("bias") if site.has("bias") and not site.is_zero("bias") else None
    single = prod(site.shape("x")[:-1]) == 1 and bias is None
    x = site.arg("x") if single else site.wide("x")
    product = Product(x, site.matrix("weight"), bias, site.narrow, single)
    if site.is_stored("weight") and (bias is None or site.is_stored("bias")):
        return product
    return product.__call__  # not together: each run has a matrix of its own


def matmul(site: Site) -> Step:
    """Batched matrix product, each side transposed if asked."""
    x, y = site.wide("x"), site.wide("y")
    flip_x, flip_y = bool(site.value("transpose_x", False)), bool(site.value("transpose_y", False))

    def step(env: list[Any]) -> Tensor:
        a, b = env[x], env[y]
        return torch.matmul(a.transpose(-1, -2) if flip_x else a, b.transpose(-1, -2) if flip_y else b)

    return site.rounded(step)


def attention(site: Site) -> Step:
    """Fused attention: softmax(q·kᵀ/√E + mask)·v; a bool mask says what takes part.

    Slots behind the last one that any row sees are left out: they would be multiplied by zero.
    """
    query, key, value = site.wide("query"), site.wide("key"), site.wide("value")
    scale = site.shape("query")[-1] ** -0.5
    if not site.has("attn_mask"):
        return site.rounded(lambda env: functional.scaled_dot_product_attention(env[query], env[key], env[value]))
    narrow, mask = site.arg("attn_mask"), site.wide("attn_mask")
    seen = site.derived(("seen", narrow), lambda env: columns_seen(env[narrow]))

    def step(env: list[Any]) -> Tensor:
        last = env[seen]
        scores = torch.matmul(env[query] * scale, env[key][..., :last, :].transpose(-1, -2))
        part = env[mask][..., :last]
        scores = scores.masked_fill_(~part, float("-inf")) if part.dtype == torch.bool else scores.add_(part)
        return torch.matmul(torch.softmax(scores, -1), env[value][..., :last, :])

    return site.rounded(step)


def columns_seen(mask: Tensor) -> int:
    """One more than the last column that some row of `mask` lets through (all, when a row lets nothing through)."""
    open_ = mask if mask.dtype == torch.bool else mask > CLOSED
    flat = open_.reshape(-1, mask.shape[-1])
    if not bool(flat.any(-1).all()):
        return mask.shape[-1]
    return int(flat.any(0).nonzero().max()) + 1


def einsum(site: Site) -> Step:
    """Einstein summation of two operands."""
    values = site.wides("values")
    equation = str(site.value("equation"))
    return site.rounded(lambda env: torch.einsum(equation, *(env[value] for value in values)))


def conv(site: Site) -> Step:
    """One- or two-dimensional convolution, padding valid or custom and equal on both sides."""
    x, weight = site.wide("x"), site.wide("weight")
    bias = site.wide("bias") if site.has("bias") else None
    rank = len(site.shape("x")) - 2
    convolve = {1: functional.conv1d, 2: functional.conv2d}.get(rank)
    kind = str(site.value("pad_type", "valid"))
    pad = site.value("pad", [0] * 2 * rank) if kind == "custom" else [0] * 2 * rank
    if convolve is None or kind not in ("valid", "custom") or pad[0::2] != pad[1::2]:
        raise site.error(f"convolution of rank {rank} with padding {kind} {pad} is not supported")
    strides, dilations = site.value("strides", [1] * rank), site.value("dilations", [1] * rank)
    groups, padding = site.value("groups", 1), pad[0::2]
    return site.rounded(
        lambda env: convolve(
            env[x], env[weight], None if bias is None else env[bias], strides, padding, dilations, groups
        )
    )


OPS: Mapping[str, Builder] = {
    "linear": linear, "matmul": matmul, "scaled_dot_product_attention": attention, "einsum": einsum, "conv": conv,
}  # fmt: skip
