"""What targets must know of a decoder's modules, found out from the modules themselves.

A norm, a scaled embedding or a rotary table is recognized by what it computes, not by its class's name: a family that
is new to kobako is either reproduced or refused, never guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UnsupportedModel, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

FULL, SLIDING = "full_attention", "sliding_attention"
KINDS = (FULL, SLIDING)
STATIC_ROPES = ("default", "linear", "llama3", "yarn", "longrope", "proportional")
"""Rotary embeddings whose frequencies a table of positions can hold; longrope within its base context."""
NORM_SAMPLE = 64
"""Values on which a norm without a weight, which does not tell its width, is tried."""
REUSES = "reuse"
"""How a config of transformers calls a layer that reads another layer's keys and values."""


class LayerCache(NamedTuple):
    """One layer's KV cache: key/value heads H, and the dimensions of a head's keys and of its values."""

    heads: int
    key_dim: int
    value_dim: int


def cache_sizes(config: Any) -> tuple[LayerCache, ...]:
    """The cache of each layer that has one, as a config of transformers states or implies it.

    These are the first layers; the others read the keys and values of one of them. Where keys and values are expanded
    from a latent vector (`latent`), the cache holds them expanded.
    """
    modes = getattr(config, "kv_sharing_modes", None) or [None] * int(config.num_hidden_layers)
    own = getattr(config, "per_layer_config", None) or [config] * len(modes)
    return tuple(layer_cache(one) for one, mode in zip(own, modes, strict=True) if mode != REUSES)


def layer_cache(config: Any) -> LayerCache:
    """The cache of a layer with this config."""
    heads = int(config.num_attention_heads)
    if getattr(config, "kv_lora_rank", None):
        return LayerCache(heads, int(config.qk_head_dim), int(config.v_head_dim))
    dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return LayerCache(int(getattr(config, "num_key_value_heads", None) or heads), dim, dim)


def check_decoder(config: Any, context_tokens: int) -> None:
    """Raise UnsupportedModel for what no static graph can hold, UsageError for a context beyond the model's."""
    longest = getattr(config, "max_position_embeddings", None)
    if longest and context_tokens > longest:
        raise UsageError(
            f"a context of {context_tokens} tokens is longer than the model's {longest}.",
            f"Use --context {longest} or less.",
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModel(
            f"architecture {config.model_type}: encoder-decoder models are not exported yet.", "Try a decoder."
        )
    if getattr(config, "enable_moe_block", False):
        raise UnsupportedModel(
            f"architecture {config.model_type} with experts: mixtures of experts are not exported.",
            "Name a dense model.",
        )
    experts = next((n for n in ("num_local_experts", "num_experts", "n_routed_experts") if getattr(config, n, 0)), None)
    if experts:
        raise UnsupportedModel(
            f"architecture {config.model_type} has {getattr(config, experts)} experts: mixtures of experts are not "
            "exported.",
            "Name a dense model.",
        )
    strange = sorted(set(getattr(config, "layer_types", None) or ()) - set(KINDS))
    if strange:
        raise UnsupportedModel(f"layers of type {', '.join(strange)} are not exported.", "Try another model.")
    for parameters in rope_parameters(config):
        check_rope(config, parameters, context_tokens)


def check_rope(config: Any, parameters: Mapping[str, Any], context_tokens: int) -> None:
    """Raise UnsupportedModel for a rope that a table of positions cannot hold."""
    kind = str(parameters.get("rope_type", "default"))
    if kind not in STATIC_ROPES:
        raise UnsupportedModel(
            f"rope type {kind!r} changes with the number of tokens seen; a table of positions cannot hold it.",
            "Use a checkpoint with the base context.",
        )
    base = parameters.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", None
    )
    if kind == "longrope" and (not base or context_tokens > base):
        raise UnsupportedModel(
            f"longrope changes its factors beyond {base} tokens; a context of {context_tokens} would need both sets.",
            f"Use --context {base} or less.",
        )


def rope_parameters(config: Any) -> list[Mapping[str, Any]]:
    """Rotary parameters: one set, or one for each kind of layer."""
    found: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    nested: list[Mapping[str, Any]] = [value for value in found.values() if isinstance(value, dict)]
    return nested or [found]


ENCODER_LENGTHS = (32, 128)


def encoder_lengths(context_tokens: int) -> tuple[int, ...]:
    """Numbers of tokens that an encoder's static graphs are made for: a short text need not pay for a long one."""
    return (*(length for length in ENCODER_LENGTHS if length < context_tokens), context_tokens)


def fitting_length(lengths: Iterable[int], tokens: int, context_tokens: int) -> int:
    """The smallest of `lengths` that holds so many tokens. Raises UsageError for none, or more than any holds."""
    fitting = [length for length in lengths if length >= tokens]
    if not tokens or not fitting:
        raise UsageError(
            f"{tokens} tokens do not fit an encoder of {context_tokens}.", "Shorten the text, or divide it."
        )
    return min(fitting)


@dataclass(frozen=True)
class AttentionOptions:
    """How one layer attends. `window`: slots that a token sees, its own included, or None for all."""

    scaling: float
    window: int | None
    softcap: float | None


def attention_options(module: nn.Module, options: Mapping[str, Any], depth: int, slots: int) -> AttentionOptions:
    """What modeling code passes to attention by name; a window that the whole context fits into is none.

    Raises UnsupportedModel for attention that takes more than queries, keys, values, a mask, a window and a soft cap.
    """
    for name in ("s_aux", "position_bias", "head_mask", "indices"):
        if options.get(name) is not None:
            raise UnsupportedModel(f"{type(module).__name__} passes {name!r} to attention.", "Try another model.")
    window = options.get("sliding_window")
    return AttentionOptions(
        scaling=options.get("scaling") or depth**-0.5,
        window=window if window and window < slots else None,
        softcap=options.get("softcap"),
    )


def embedding_scale(module: nn.Module) -> float:
    """What an embedding multiplies its rows with. Raises UnsupportedModel for one that does something else."""
    from torch import nn

    scale = getattr(module, "embed_scale", None)
    if scale is None and type(module) is not nn.Embedding:
        raise UnsupportedModel(f"the embedding {type(module).__name__} is not known.", "Try another model.")
    return 1.0 if scale is None else float(scale)


@dataclass(frozen=True)
class NormFacts:
    """``(x [− mean]) / sqrt(mean(x²) + epsilon) [· weight] [+ bias]``; `weight` is what is really multiplied with."""

    weight: torch.Tensor | None
    bias: torch.Tensor | None
    epsilon: float
    centred: bool


def is_norm(module: nn.Module) -> bool:
    """Whether a module calls itself a norm of its last axis."""
    return type(module).__name__.endswith(("RMSNorm", "LayerNorm"))


def norm_facts(module: Any) -> NormFacts:
    """What a norm computes, checked by running it. Raises UnsupportedModel for one that computes something else."""
    import torch

    epsilon = next((getattr(module, n) for n in ("variance_epsilon", "eps", "epsilon") if hasattr(module, n)), None)
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    known = weight is None or (isinstance(weight, torch.Tensor) and weight.dim() == 1)
    if isinstance(epsilon, float) and known:
        width = NORM_SAMPLE if weight is None else weight.numel()
        x = torch.linspace(-2.0, 3.0, width).mul(1.7)[None].cos() + 0.3
        with torch.no_grad():
            said = module(x)
            for centred in (False, True):
                for offset in (0.0, 1.0):
                    facts = NormFacts(None if weight is None else weight.float() + offset, bias, epsilon, centred)
                    if torch.allclose(normalized(x, facts), said, rtol=1e-4, atol=1e-5):
                        return facts
    raise UnsupportedModel(f"the norm {type(module).__name__} computes something unknown.", "Try another model.")


def normalized(x: torch.Tensor, facts: NormFacts) -> torch.Tensor:
    """The formula of `NormFacts`."""
    import torch

    y = x - x.mean(-1, keepdim=True) if facts.centred else x
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + facts.epsilon)
    y = y if facts.weight is None else y * facts.weight
    return y if facts.bias is None else y + facts.bias


def rotary_tables(rotary: Any, context_tokens: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Cosines and sines ``[1, S, D']`` of every position, by kind of layer (one entry, ``""``, when all share them)."""
    import torch

    positions = torch.arange(context_tokens)[None]
    kinds = getattr(rotary, "layer_types", None)
    with torch.no_grad():
        if kinds is None:
            return {"": tuple(part.contiguous() for part in rotary(torch.zeros(1), positions))}
        return {kind: tuple(part.contiguous() for part in rotary(torch.zeros(1), positions, kind)) for kind in kinds}


def is_rotary(module: nn.Module) -> bool:
    """Whether a module makes cosines and sines of positions."""
    return type(module).__name__.endswith("RotaryEmbedding")
