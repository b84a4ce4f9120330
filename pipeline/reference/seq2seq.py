"""Encoder-decoders in eager PyTorch: transformers' own code as the two functions that every target exports.

``Reads`` runs the encoder once and projects its hidden states to the keys and values that every decoder layer looks at;
``Continues`` adds one token to the answer. Both are pure functions: the caches are arguments and results.

Shape legend: T tokens of the source, S slots of the answer's cache, N heads, D head dimension, L decoder layers,
V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from .. import families
from ..families import Family
from .encoder import MASKED
from .structure import FULL, SLIDING

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Write = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""``(cache [1, N, S, D], update [1, N, 1, D], position [1])`` → the cache with the update in that slot."""


def seq2seq_modules(config: PretrainedConfig, attention: str | None) -> Any:
    """The modules of an encoder-decoder, parameters as the caller's context makes them, in eval mode."""
    from transformers import AutoModelForSeq2SeqLM

    model: Any = AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    for module in model.modules():
        if type(module).__name__ == "MarianSinusoidalPositionalEmbedding":
            table = module.create_weight()
            del module.weight  # computed, not learned: most checkpoints do not store it
            module.register_buffer("weight", table, persistent=False)
    if hasattr(model.get_encoder(), "vision_tower"):
        keep_text(model)
    model.tie_weights = partial(tie_tables, model)
    return model.eval()


def keep_text(model: Any) -> None:
    """Leave out of an encoder what reads images, and of the embeddings the row that ends one."""
    from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

    model.model.encoder = model.get_encoder().text_model
    for part in (model.get_encoder(), model.get_decoder()):
        found = part.embed_tokens
        part.embed_tokens = Gemma3TextScaledWordEmbedding(
            found.num_embeddings, found.embedding_dim, found.padding_idx, found.scalar_embed_scale
        )


def tie_tables(model: Any, **_options: object) -> None:
    """Let decoder and a tied head read the one table, and the encoder where it has none of its own.

    What is tied is what config.json says: transformers 5 overwrites that for T5, whose later checkpoints have a head of
    their own.
    """
    family = families.get(model.config.model_type)
    table: nn.Parameter = model.get_parameter(family.embedding)
    for part in (model.get_decoder(), *(() if family.source_embedding else (model.get_encoder(),))):
        part.embed_tokens.weight = table
    if model.config.tie_word_embeddings:
        model.get_output_embeddings().weight = table


def tables_read(model: Any) -> dict[str, str]:
    """Paths of the embeddings of tokens, each with the parameter name of the table that it reads."""
    names = {id(model.get_parameter(name)): name for name in families.get(model.config.model_type).tables}
    modules = model.named_modules(remove_duplicate=False)
    found = {path: names.get(id(module.weight)) for path, module in modules if isinstance(module, nn.Embedding)}
    return {path: name for path, name in found.items() if name}


def state_names(layers: int, kind: str) -> list[str]:
    """Names of the caches in their order; `kind` is ``cross`` or ``self``."""
    return [f"{kind}_{part}_{layer}" for layer in range(layers) for part in "kv"]


def used_by(names: Iterable[str], family: Family, *, reading: bool) -> tuple[str, ...]:
    """Those of a model's parameters that `Reads` uses, or those that `Continues` uses.

    A table that both sides read is in both, and so is what makes keys and values of the source and of the answer.
    """
    decoder = family.layers.rpartition(".")[0]
    encoder = decoder.removesuffix("decoder") + "encoder."

    def used(name: str) -> bool:
        shared = name == family.embedding and not family.source_embedding
        if shared or name.startswith(encoder):
            return reading or shared
        crosses = any(f".{path}." in name for path in (*family.cross, family.cross_norm) if path)
        return crosses == reading or (crosses and family.merged)

    return tuple(name for name in names if used(name))


def additive(mask: torch.Tensor) -> torch.Tensor:
    """A mask ``[1, T]`` of 0 and 1 → what is added to scores ``[1, 1, 1, T]``."""
    return (1.0 - mask.to(torch.float32))[:, None, None, :] * MASKED


def by_kind(part: Any, mask: torch.Tensor, near: Callable[[int], torch.Tensor]) -> Any:
    """The additive `mask`, or one for each kind of layer where an encoder or decoder has kinds.

    `near`: window → the mask of those that slide.
    """
    if not has_kinds(part):
        return mask
    window = part.config.sliding_window
    return {FULL: mask, SLIDING: mask if window is None else near(window)}


def has_kinds(part: Any) -> bool:
    """Whether layers of an encoder or decoder differ in what they look at; such a part is told positions too."""
    return bool(getattr(part.config, "layer_types", None))


def near_both_ways(tokens: Any, reach: tuple[int, int], integer: torch.dtype) -> torch.Tensor:
    """Which tokens of a source each one sees, ``[T, T]``; `reach`: how far back and how far ahead."""
    rows = torch.arange(tokens, dtype=integer)
    behind = rows[:, None] - rows[None]
    return (behind <= reach[0]) & (behind >= -reach[1])


def reach_of(window: int, family: Family) -> tuple[int, int]:
    """How many tokens back and how many ahead one of a source sees in a layer that slides."""
    return (window, window) if family.window_each_way else ((window - 1) // 2, window // 2)


class Reads(nn.Module):
    """``(ids [1, T], mask [1, T] of 0 and 1)`` → keys and values ``[1, N, T, D]`` of every decoder layer, in order.

    With `slots`, zeros behind them make up so many slots: a short source has a graph of its own, the answer has one.
    """

    def __init__(self, model: Any, family: Family, slots: int | None = None) -> None:
        super().__init__()
        self.model, self.family, self.slots = model, family, slots

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        encoder, seen = self.model.get_encoder(), additive(mask)
        length, integer = ids.shape[1], ids.dtype

        def near(window: int) -> torch.Tensor:
            return seen + additive(near_both_ways(length, reach_of(window, self.family), integer)).transpose(0, 2)

        told = {"position_ids": torch.arange(length, dtype=integer)[None]} if has_kinds(encoder) else {}
        hidden = encoder(input_ids=ids, attention_mask=by_kind(encoder, seen, near), **told).last_hidden_state
        found = []
        for layer in self.model.get_submodule(self.family.layers):
            keys, values = (self.heads(layer.get_submodule(path)(hidden)) for path in self.family.cross)
            norm = self.family.cross_norm
            found += [layer.get_submodule(norm)(keys) if norm else keys, values]
        return tuple(found if self.slots in (None, length) else map(self.filled, found))

    def filled(self, rows: torch.Tensor) -> torch.Tensor:
        """``[1, N, T, D]`` → ``[1, N, slots, D]``."""
        return nn.functional.pad(rows, (0, 0, 0, (self.slots or 0) - rows.shape[2]))

    def heads(self, rows: torch.Tensor) -> torch.Tensor:
        """``[1, T, N·D]`` → ``[1, N, T, D]``."""
        return rows.reshape(1, rows.shape[1], *state_shape(self.model, 1)[1::2]).transpose(1, 2)


class Continues(nn.Module):
    """``(token [1, 1], position [1], mask [1, T], 2L of cross, 2L of self)`` → logits ``[1, V]`` and the 2L of self."""

    def __init__(self, model: Any, family: Family, write: Write | None = None) -> None:
        super().__init__()
        self.model, self.family, self.write = model, family, write or written

    def forward(
        self, token: torch.Tensor, position: torch.Tensor, mask: torch.Tensor, *states: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        half, decoder = len(states) // 2, self.model.get_decoder()
        slots = torch.arange(states[half].shape[2], dtype=position.dtype)
        seen, source = slots <= position, additive(mask)

        def near(window: int) -> torch.Tensor:
            return additive((seen & (slots > position - window))[None])

        told = {"decoder_position_ids": position[None]} if has_kinds(decoder) else {}
        cache = FedCache(states[:half], states[half:], position, self.write)
        found = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=torch.zeros(1, 1, 1)),  # read already: see `FedCache`
            attention_mask=by_kind(decoder, source, lambda _: source), decoder_input_ids=token,
            decoder_attention_mask=by_kind(decoder, additive(seen[None]), near), cache=cache, use_cache=True, **told,
        )  # fmt: skip
        return (found.logits[:, 0], *cache.states)


def written(cache: torch.Tensor, update: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """The plain `Write`: exact, since nothing is added."""
    here = torch.arange(cache.shape[2], dtype=position.dtype) == position
    return torch.where(here[None, None, :, None], update, cache)


class FedLayer:
    """One layer's keys and values."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys, values


class FedCache(EncoderDecoderCache):
    """A cache made of a graph's arguments: cross-attention is there already, an update goes to `position`."""

    def __init__(
        self, cross: Sequence[torch.Tensor], own: Sequence[torch.Tensor], position: torch.Tensor, write: Write
    ) -> None:
        self.self_attention_cache: Any = _Written(own, position, write)
        self.cross_attention_cache: Any = _Written(cross, position, write)
        self.is_updated = dict.fromkeys(range(len(own) // 2), True)
        self.position = position

    @property
    def states(self) -> list[torch.Tensor]:
        """Self-attention's keys and values, layer by layer."""
        return [one for layer in self.self_attention_cache.layers for one in (layer.keys, layer.values)]

    def get_seq_length(self, _layer: int = 0) -> Any:
        """Where the token stands, as a tensor."""
        return self.position


class _Written(Cache):
    def __init__(self, states: Sequence[torch.Tensor], position: torch.Tensor, write: Write) -> None:
        self.layers: list[Any] = [FedLayer(*pair) for pair in zip(states[::2], states[1::2], strict=True)]
        self.position, self.write = position, write

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All S slots, the new one among them."""
        one = self.layers[layer]
        one.keys, one.values = (self.write(*pair, self.position) for pair in ((one.keys, key), (one.values, value)))
        return one.keys, one.values

    def get_seq_length(self, _layer: int = 0) -> Any:
        return self.position


def state_shape(model: Any, slots: int) -> tuple[int, int, int, int]:
    """``[1, N, S, D]`` of a decoder layer's keys, or values."""
    config = model.get_decoder().config
    if hasattr(config, "num_key_value_heads"):
        return (1, int(config.num_key_value_heads), slots, int(config.head_dim))
    heads = getattr(config, "decoder_attention_heads", None) or config.num_heads
    return (1, int(heads), slots, int(getattr(config, "d_kv", None) or config.d_model // heads))
