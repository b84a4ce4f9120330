"""Attention as Core ML's fused operation, and the masks it is given.

Shape legend: `kobako.pipeline.contracts`; here T is the fixed chunk length of one function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from kobako.pipeline.reference.structure import LayerCache, attention_options
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

ATTENTION = "kobako_coreml"
MASKED = -10000.0  # exp() of it is 0 in float16 too; a true infinity would hide real overflows from the proof


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the graph's static shapes are made of.

    Attributes:
        caches: heads and dimensions of each layer that has a cache.
        slots: S of every cache.
        per_layer: layers and width of the per-layer inputs, or None when the model takes none.
    """

    caches: tuple[LayerCache, ...]
    slots: int
    vocabulary: int
    per_layer: tuple[int, int] | None = None


class Masks:
    """The masks of one call, additive ``[1, 1, groups · T, S]``: each made once, however many layers use it.

    The query groups of a head (query heads that share one key/value head) are folded into the rows.
    """

    def __init__(self, sizes: Sizes, positions: torch.Tensor) -> None:
        self.sizes, self.positions = sizes, positions
        self.made: dict[tuple[int, int], torch.Tensor] = {}

    @staticmethod
    def none() -> Masks:
        """For a model that is only built, not run. Raises RuntimeError."""
        raise RuntimeError("no call is being traced")

    def within(self, window: int | None, groups: int = 1) -> torch.Tensor:
        """Each token sees its own slot and those before it, at most `window` of them."""
        key = (window or self.sizes.slots, groups)
        if key not in self.made:
            slots, own = torch.arange(self.sizes.slots, dtype=torch.int32)[None], self.positions[:, None]
            mask = torch.where(slots <= own, torch.zeros(1), torch.full((1,), MASKED))
            if window:
                mask = torch.where(slots > own - window, mask, torch.full((1,), MASKED))
            chunk = self.positions.shape[0]
            self.made[key] = mask.repeat(groups, 1)[None, None] if chunk > 1 else mask[None, None]
        return self.made[key]


def folded_attention(masks: Callable[[], Masks]) -> Any:
    """An attention function that folds query groups into rows, so that K and V are never repeated.

    `masks` gives the masks of the call that is being traced.
    """

    def attention(
        module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _mask: object, **named: Any
    ) -> tuple[torch.Tensor, None]:
        chunk, dim, heads = query.shape[2], query.shape[3], key.shape[1]
        groups = query.shape[1] // heads
        options = attention_options(module, named, dim, key.shape[2])
        mask = masks().within(options.window, groups)
        # The fused Core ML op has no scale input: what differs from 1/sqrt(D) is multiplied into the query.
        factor = options.scaling * dim**0.5
        if abs(factor - 1.0) > 1e-6:
            query = query * factor
        query = query.reshape(1, heads, groups * chunk, dim)
        if options.softcap is None:
            output = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            output = capped(query, key, value, mask, options.softcap)
        return output.reshape(1, heads * groups, chunk, -1).transpose(1, 2), None

    return attention


def capped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, softcap: float
) -> torch.Tensor:
    """Attention whose scores s become ``softcap · tanh(s / softcap)``; no score exceeds the cap, in float16 either."""
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 / softcap), key.transpose(-1, -2))
    return torch.matmul(torch.softmax(torch.tanh(scores) * softcap + mask, dim=-1), value)


@contextmanager
def registered_attention(masks: Callable[[], Masks]) -> Iterator[None]:
    """Within the block transformers' models built with ATTENTION use our attention function."""
    AttentionInterface.register(ATTENTION, folded_attention(masks))
    try:
        yield
    finally:
        AttentionInterface._global_mapping.pop(ATTENTION, None)
