"""The KV cache that is traced: float32, or int8 with a step and a zero per token and head.

Shape legend: S tokens fed at once (dynamic), C slots of the KV cache, F slots filled after them, H key/value heads,
D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from kobako.pipeline.contracts import KvCache
from kobako.pipeline.reference.structure import LayerCache
from transformers.cache_utils import Cache

from .position import Position

Buffer = Callable[[str], torch.Tensor]
"""A buffer of the traced module, by name."""


def buffers(sizes: Sequence[LayerCache], context_tokens: int, kind: KvCache) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and initial value of every buffer of the cache, ``[1, C, H, D]`` or ``[1, C, H, 1]``."""
    for layer, (heads, dim, _) in enumerate(sizes):  # shorter values: see `FloatCache`
        for name in (f"keys_{layer}", f"values_{layer}"):
            if kind == "float":
                yield name, torch.zeros(1, context_tokens, heads, dim)
                continue
            yield name, torch.zeros(1, context_tokens, heads, dim, dtype=torch.int8)
            yield f"{name}_scales", torch.zeros(1, context_tokens, heads, 1)
            yield f"{name}_zeros", torch.zeros(1, context_tokens, heads, 1, dtype=torch.int32)


class FloatCache(Cache):
    """Keys and values in buffers ``[1, C, H, D]`` that ``llama.update_cache`` writes in place.

    The fused attention knows one D only: shorter values lie in slots as long as the keys', zeros behind them.
    """

    def __init__(self, buffer: Buffer, position: Position) -> None:
        self.layers: list[Any] = []  # transformers asks them for mask shapes; full attention needs no mask
        self.buffer, self.position = buffer, position

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_args: object, **_kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write ``[1, H, S, D]`` at the current position; what attention reads comes back."""
        if shorter := key_states.shape[-1] - value_states.shape[-1]:
            value_states = torch.nn.functional.pad(value_states, (0, shorter))
        return (
            self.stored(f"keys_{layer_idx}", key_states.transpose(1, 2)),
            self.stored(f"values_{layer_idx}", value_states.transpose(1, 2)),
        )

    def stored(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """Write ``[1, S, H, D]``; the whole buffer comes back."""
        return self.write(name, states)

    def write(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """Write into one buffer at the current position, and give it back."""
        buffer = self.buffer(name)
        torch.ops.llama.update_cache(states, buffer, self.position.start)
        return buffer

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Always 0: positions come from outside."""
        return 0


class RoundedCache(FloatCache):
    """The same in int8, rounded per token and head, expanded to float32 as far as it is filled before attention reads.

    Attention in int8 (``llama.custom_quantized_sdpa``) rounds the query as well, and takes ten times as long to read a
    prompt on x86 (docs/adr/0014).
    """

    def stored(self, name: str, states: torch.Tensor) -> torch.Tensor:
        """Write ``[1, S, H, D]``; the filled slots come back as float32 ``[1, F, H, D]``."""
        ops = torch.ops.quantized_decomposed
        scales, zeros = ops.choose_qparams_per_token_asymmetric(states, torch.int8)
        codes = ops.quantize_per_token(states, scales, zeros, -128, 127, torch.int8)
        filled = self.position.start + states.shape[1]
        parts = [
            self.write(name + end, part).narrow(1, 0, filled)
            for end, part in (("", codes), ("_scales", scales.to(torch.float32)), ("_zeros", zeros.to(torch.int32)))
        ]
        read: torch.Tensor = ops.dequantize_per_token(*parts, -128, 127, torch.int8, torch.float32)
        return read


CACHES: dict[KvCache, type[FloatCache]] = {"float": FloatCache, "int8": RoundedCache}
