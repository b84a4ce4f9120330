"""OpenELM (Apple, arXiv:2404.14619): each layer has its own numbers of heads and its own width.

transformers has no code for it; `kobako.pipeline.reference.modeling.openelm` is written from the paper.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import UnsupportedModel
from . import Family

FIXED = {"normalization_layer_name": "rms_norm", "activation_fn_name": "swish", "ffn_with_glu": True}
"""What all published checkpoints have alike."""


def width(config: Mapping[str, Any], multiplier: float) -> int:
    """A feed-forward width: multiplier × model_dim, to the nearest multiple of ffn_dim_divisor, never 10 % less."""
    divisor, exact = config["ffn_dim_divisor"], multiplier * config["model_dim"]
    nearest = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return int(nearest + divisor if nearest < 0.9 * exact else nearest)


def as_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with llama's names, and a list of what each layer has. Raises UnsupportedModel."""
    for name, wanted in FIXED.items():
        if config.get(name, wanted) != wanted:
            raise UnsupportedModel(f"this OpenELM has {name} {config[name]!r}.", f"Only {wanted!r} is known.")
    layers = config["num_transformer_layers"]
    lists = [config.get(name) for name in ("num_query_heads", "num_kv_heads", "ffn_multipliers")]
    if not all(isinstance(one, list) and len(one) == layers for one in lists):
        raise UnsupportedModel(
            f"config.json does not list num_query_heads, num_kv_heads and ffn_multipliers of all {layers} layers.",
            "Take the config.json that was published with the weights.",
        )
    each = {
        str(index): {"num_attention_heads": heads, "num_key_value_heads": shared, "intermediate_size": width(config, m)}
        for index, (heads, shared, m) in enumerate(zip(*lists, strict=True))
    }
    return {
        **{name: config[name] for name in ("model_type", "vocab_size", "head_dim")},
        **{name: config.get(name) for name in ("bos_token_id", "eos_token_id")},
        "hidden_size": config["model_dim"],
        "num_hidden_layers": layers,
        **{name: max(one[name] for one in each.values()) for name in each["0"]},
        "per_layer_config": each,
        "max_position_embeddings": config["max_context_length"],
        "rope_parameters": {"rope_type": "default", "rope_theta": float(config["rope_freq_constant"])},
        "normalize_qk_projections": config["normalize_qk_projections"],
        "tie_word_embeddings": config["share_input_output_layers"],
        "rms_norm_eps": 1e-6,
    }


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of the tensors that tell a layer's heads and width."""
    found: dict[str, tuple[int, ...]] = {}
    for index, one in config["per_layer_config"].items():
        rows = (one["num_attention_heads"] + 2 * one["num_key_value_heads"]) * config["head_dim"]
        found[f"model.layers.{index}.self_attn.qkv_proj.weight"] = (rows, config["hidden_size"])
        found[f"model.layers.{index}.mlp.down_proj.weight"] = (config["hidden_size"], one["intermediate_size"])
    return found


ENDS = {
    "token_embeddings": "embed_tokens", ".attn.qkv_proj": ".self_attn.qkv_proj", ".attn.out_proj": ".self_attn.o_proj",
    ".attn.q_norm": ".self_attn.q_norm", ".attn.k_norm": ".self_attn.k_norm", ".attn_norm": ".input_layernorm",
    ".ffn_norm": ".post_attention_layernorm", ".ffn.proj_1": ".mlp.gate_up_proj", ".ffn.proj_2": ".mlp.down_proj",
}  # fmt: skip
FAMILY = Family(
    model_type="openelm",
    rewrite=as_llama,
    shapes=shapes,
    stored_prefixes={"transformer.": "model."},
    stored_ends={f"{stored}.weight": f"{ours}.weight" for stored, ours in ENDS.items()},
    feeds={"input_layernorm": ("self_attn.qkv_proj",), "post_attention_layernorm": ("mlp.gate_up_proj",)},
    tokenizer="Llama 2 (meta-llama/Llama-2-7b-hf)",
)
