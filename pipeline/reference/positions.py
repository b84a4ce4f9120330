"""Positions of encoder-decoders as rows of tables that transformers' own modules made: exact, and without logarithms.

Shape legend: T tokens, N heads, D head dimension, H hidden size.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from .. import families
from .seq2seq import reach_of
from .structure import is_rotary, rotary_tables


def refit(model: Any, longest: int, integer: torch.dtype) -> None:
    """Replace what makes positions by look-ups of positions that the graph is told.

    T5's feed-forward layers ask for the type of a matrix that targets store otherwise; they no longer do.

    `longest`: tokens of the source or the answer, whichever is more; `integer`: the type of the graph's indices.
    """
    for path, module in list(model.named_modules()):
        if getattr(module, "has_relative_attention_bias", False):
            module.compute_bias = RelativeBias(module, longest, integer)
        if hasattr(module, "wo") and hasattr(module, "act"):
            module.forward = partial(feed_forward, module)
        if is_rotary(module):
            model.set_submodule(path, Rotations(module, longest, integer))
    family, decoder = families.get(model.config.model_type), model.get_decoder()
    for part in (model.get_encoder(), decoder):
        window = getattr(part.config, "sliding_window", None)
        if window and (window if part is decoder else min(reach_of(window, family)) + 1) >= longest:
            part.config.sliding_window = None  # all of it fits
        found = getattr(part, "embed_positions", None)
        if found is not None:
            part.embed_positions = Sinusoids(found, longest, integer)


def feed_forward(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What a feed-forward layer of T5 computes, gated or not."""
    inner = module.act(module.wi_0(hidden)) * module.wi_1(hidden) if hasattr(module, "wi_0") else None
    result: torch.Tensor = module.wo(module.act(module.wi(hidden)) if inner is None else inner)
    return result


class Sinusoids(nn.Module):
    """Sinusoidal positions of consecutive tokens, rows of a table that transformers' own module made."""

    table: torch.Tensor  # [longest, H]

    def __init__(self, found: Any, longest: int, integer: torch.dtype) -> None:
        super().__init__()
        self.integer = integer
        first = 0
        table = getattr(found, "weights", None)
        if table is None:
            table = found.weight
        else:
            first = found.padding_idx + 1  # M2M100 counts from behind its padding
            found.make_weights(longest + first, found.embedding_dim, found.padding_idx)
            table = found.weights
        self.register_buffer("table", table[first : first + longest].detach().clone(), persistent=False)

    def forward(self, first: Any, *rest: Any, position_ids: Any = None) -> torch.Tensor:
        """Rows ``[1, T, H]`` from the first free position on.

        Marian gives shape and length of the cache, M2M100 ids, embeddings and the length; an encoder gives no length.
        """
        shape, *lengths = (first, *rest) if isinstance(first, tuple) else (first.shape, *rest[1:])
        rows = torch.arange(shape[1], dtype=self.integer) + (lengths[0] if lengths else 0)
        return self.table.index_select(0, rows)[None]


class Rotations(nn.Module):
    """Cosines and sines of positions, rows of tables that transformers' own module made for each kind of layer."""

    def __init__(self, found: nn.Module, longest: int, integer: torch.dtype) -> None:
        super().__init__()
        self.integer = integer
        for kind, pair in rotary_tables(found, longest).items():
            for name, table in zip(("cos", "sin"), pair, strict=True):
                self.register_buffer(f"{name}_{kind}", table[0].clone(), persistent=False)  # [longest, D]

    def forward(self, _hidden: torch.Tensor, position_ids: torch.Tensor, kind: str = "") -> tuple[torch.Tensor, ...]:
        """Rows ``[1, T, D]`` of positions ``[1, T]``."""
        rows = position_ids[0].to(self.integer)
        return tuple(self.get_buffer(f"{name}_{kind}").index_select(0, rows)[None] for name in ("cos", "sin"))


class RelativeBias:
    """T5's learned bias for each distance of two tokens: the bucket of a distance is looked up."""

    def __init__(self, attention: Any, longest: int, integer: torch.dtype) -> None:
        self.attention, self.longest, self.integer = attention, longest, integer
        distances = torch.arange(1 - longest, longest)
        self.buckets = attention._relative_position_bucket(
            distances, bidirectional=not attention.is_decoder, num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        ).to(integer)  # fmt: skip

    def __call__(
        self, query_length: int, key_length: int, device: Any = None, past_seen_tokens: Any = 0
    ) -> torch.Tensor:
        """``[1, N, query_length, key_length]``; `past_seen_tokens`: the position of the first query."""
        queries = torch.arange(query_length, dtype=self.integer) + past_seen_tokens
        keys = torch.arange(key_length, dtype=self.integer) + (self.longest - 1)
        rows = self.buckets.index_select(0, (keys[None] - queries[:, None]).reshape(-1))
        bias: torch.Tensor = self.attention.relative_attention_bias(rows)
        return bias.reshape(query_length, key_length, -1).permute(2, 0, 1)[None]
