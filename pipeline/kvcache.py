"""The KV cache of an artifact: whether a target has the kind that is asked for, and what it takes in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kobako import targets

from .contracts import ExportOptions, KvCache
from .errors import UnsupportedRecipe
from .estimate import entry, is_encoder
from .seq2seq.limits import is_seq2seq, sides


def check_kv_cache(names: Sequence[str], kv_cache: KvCache) -> None:
    """Raise UnsupportedRecipe for a target that does not keep keys and values so, naming those that do."""
    able = [name for name in targets.names() if kv_cache in targets.get(name).kv_caches]
    for name in names:
        if name not in able:
            others = " ".join(f"--target {other}" for other in able)
            raise UnsupportedRecipe(
                f"target {name} has no {kv_cache} KV cache.",
                f"These have: {', '.join(able)}. Build with {others} only.",
            )


def cache_shapes(config: Mapping[str, Any]) -> tuple[tuple[int, int, int], ...]:
    """Heads of each layer with a cache, and the dimensions of their keys and values, from config.json alone.

    Empty for encoders.
    """
    if is_encoder(config):
        return ()
    if parts := sides(config):
        return cache_shapes(parts[-1]) * 2  # the source's and the answer's
    if is_seq2seq(config):
        count = config.get("num_decoder_layers") or config.get("num_layers") or config["decoder_layers"]
        number = int(config.get("decoder_attention_heads") or config["num_heads"])
        size = int(config.get("d_kv") or config["d_model"] // number)
        return tuple((number, size, size) for _ in range(2 * int(count)))
    hidden, layers, heads = (
        entry(config, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    )
    if hidden is None or layers is None or heads is None:
        return ()
    if config.get("kv_lora_rank"):  # expanded from a latent vector, one for all heads
        key_dim = int(config["qk_nope_head_dim"]) + int(config["qk_rope_head_dim"])
        return tuple((heads, key_dim, int(config.get("v_head_dim") or hidden // heads)) for _ in range(layers))
    kinds = config.get("layer_types") or [""] * layers
    own = layers - int(config.get("num_kv_shared_layers") or 0)
    depth = int(config.get("head_dim") or hidden // heads)
    wide = int(config.get("global_head_dim") or depth)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    found = []
    for layer, kind in enumerate(kinds[:own]):
        differs = (config.get("per_layer_config") or {}).get(str(layer), {})  # as transformers writes it
        dim = differs.get("head_dim", wide if kind == "full_attention" else depth)
        found.append((int(differs.get("num_key_value_heads", kv_heads)), int(dim), int(dim)))
    return tuple(found)


def kv_cache_bytes(config: Mapping[str, Any], options: ExportOptions, target: str) -> int:
    """Bytes of the whole cache of a target's artifact: keys and values of every layer and slot."""
    cost = targets.get(target).kv_caches[options.kv_cache]
    per_token = sum(
        heads * (cost.value_bytes * (key_dim + value_dim) + 2 * cost.vector_bytes)
        for heads, key_dim, value_dim in cache_shapes(config)
    )
    return per_token * options.context_tokens
