"""Tiny random models of true architecture, their quirks switched on: what the contract tests export and compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kobako.pipeline.contracts import RECIPES, Quantized

SIZES: Mapping[str, Any] = {
    "vocab_size": 384, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "tie_word_embeddings": True,
}  # fmt: skip
WINDOW = 48
"""Shorter than the proof's text and longer than a chunk, so that a window that is wrong cannot hide."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One configuration: what differs from SIZES, and where the quirk it stands for is seen."""

    model_type: str
    quirk: str
    options: Mapping[str, Any]
    without: tuple[str, ...] = ()
    new: bool = False  # has no file of its own


def llama3_rope() -> dict[str, Any]:
    return {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip


def longrope() -> dict[str, Any]:
    return {
        "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
        "short_factor": [1.0, 1.1, 1.3, 1.5, 1.8, 2.0], "long_factor": [2.0, 3.0, 5.0, 8.0, 13.0, 21.0],
        "original_max_position_embeddings": 256,
    }  # fmt: skip


def partial(factor: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": factor}


SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
PER_LAYER = {
    "num_hidden_layers": 5, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": 384, "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
}  # fmt: skip
SHAPES: tuple[Shape, ...] = (
    Shape(model_type="llama", quirk="llama3 rope", options={"rope_parameters": llama3_rope()}),
    Shape(model_type="qwen2", quirk="biases, untied head", options={"tie_word_embeddings": False}),
    Shape(model_type="qwen3", quirk="q/k norm, own head size", options={"head_dim": 32}),
    Shape(
        model_type="phi3", quirk="longrope, partial rotary 0.75, fused projections",
        options={
            "rope_parameters": longrope(), "original_max_position_embeddings": 256, "max_position_embeddings": 1024,
            "sliding_window": None,
        },
    ),
    Shape(
        model_type="stablelm", quirk="partial rotary, LayerNorm, parallel residual, biases",
        options={
            "rope_parameters": partial(0.25), "use_parallel_residual": True, "use_qkv_bias": True,
            "qk_layernorm": False, "tie_word_embeddings": False,
        },
    ),
    Shape(
        model_type="gpt_neox", quirk="partial rotary, parallel residual, fused qkv",
        options={"rope_parameters": partial(0.25), "use_parallel_residual": True, "tie_word_embeddings": False},
        without=("num_key_value_heads",),
    ),
    Shape(
        model_type="gpt2", quirk="learned positions, transposed matrices",
        options={"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 128, "n_positions": 512},
        without=(
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "max_position_embeddings",
        ),
    ),
    Shape(
        model_type="gemma2", quirk="soft caps, sliding window",
        options={**SLIDING, "head_dim": 16, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 3.0,
                 "final_logit_softcapping": 20.0},
    ),
    Shape(
        model_type="gemma3_text", quirk="two ropes, sliding window, q/k norm",
        options={
            **SLIDING, "head_dim": 32, "query_pre_attn_scalar": 32, "num_key_value_heads": 1,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    Shape(
        model_type="granite", quirk="multipliers of embeddings, residuals, attention and logits",
        options={"embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1,
                 "logits_scaling": 4.0},
    ),
    Shape(
        model_type="gemma4_text", quirk="per-layer inputs, shared keys and values, head sizes by kind of layer",
        options={
            **PER_LAYER, "head_dim": 16, "global_head_dim": 32, "num_key_value_heads": 1, "use_double_wide_mlp": True,
            "final_logit_softcapping": 20.0,
        },
    ),
    Shape(
        model_type="gemma3n_text", quirk="per-layer inputs, AltUp, LAuReL, sparse activations, shared keys and values",
        options={
            **PER_LAYER, "head_dim": 16, "laurel_rank": 32, "altup_num_inputs": 3, "vocab_size_per_layer_input": 380,
            "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0, 0.0], "intermediate_size": [128, 128, 160, 128, 128],
        },
    ),
    Shape(
        model_type="openelm", quirk="heads and widths of each layer's own, fused projections, q/k norm",
        options={
            "head_dim": 16, "normalize_qk_projections": True,
            "per_layer_config": {
                "0": {"num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 64},
                "1": {"num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 192},
            },
        },
    ),
    Shape(
        model_type="minicpm3", quirk="latent attention, values shorter than keys, longrope, multipliers",
        options={
            "num_key_value_heads": 4, "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 16, "v_head_dim": 16, "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16,
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 512,
                **{name: [1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0] for name in ("short_factor", "long_factor")},
            },
        },
    ),
    Shape(model_type="mistral", quirk="sliding window in all layers", options={"sliding_window": WINDOW}),
    Shape(
        model_type="smollm3", quirk="no rope in every other layer", new=True,
        options={"no_rope_layers": [1, 0], "no_rope_layer_interval": 2},
    ),
    Shape(model_type="olmo2", quirk="norms behind the blocks, whole-row q/k norm", options={}, new=True),
)  # fmt: skip


def config_of(shape: Shape) -> Any:
    """The configuration as transformers has it, or would have it."""
    from kobako.pipeline.reference.modeling import own_class
    from transformers import AutoConfig

    if own := own_class(shape.model_type):
        return own.config_class(**SIZES, **shape.options)
    sizes = {key: value for key, value in SIZES.items() if key not in shape.without}
    return AutoConfig.for_model(shape.model_type, **{**sizes, **shape.options})


def make(directory: Path, shape: Shape, recipe: str, write_tokenizer: Any) -> Quantized:
    """A random model of `shape`, quantized into `directory`."""
    from kobako.pipeline import families
    from kobako.pipeline.contracts import no_progress
    from kobako.pipeline.embeddings import TABLE_FILE, quantized_rows, write_table
    from kobako.pipeline.quantize import quantize_all, table_layout
    from kobako.pipeline.reference.eager import empty_model
    from kobako.pipeline.scheme import parameter_roles
    from kobako.pipeline.weights import WEIGHTS_FILE, write_weights

    config = config_of(shape)
    model = empty_model(config)
    family = families.get(shape.model_type)
    write_tokenizer(directory / "tokenizer")
    config.save_pretrained(directory)
    (directory / "generation_config.json").write_text('{"eos_token_id": [2]}')
    values = {name: random_values(name, parameter.shape, family) for name, parameter in model.named_parameters()}
    roles = parameter_roles(model, family)
    write_weights(directory / WEIGHTS_FILE, quantize_all(values, roles, RECIPES[recipe], no_progress))
    if family.per_layer_table in roles:
        table = values[family.per_layer_table]
        layout = table_layout(f"tiny-{shape.model_type}", model, family.per_layer_table, RECIPES[recipe])
        write_table(directory / TABLE_FILE, layout, quantized_rows(lambda begin, end: table[begin:end], layout))
    return Quantized(
        name=f"tiny-{shape.model_type}", directory=directory, recipe=RECIPES[recipe], model_type=shape.model_type
    )


def with_layers(
    directory: Path, model_type: str, layer_types: list[str], write_tokenizer: Any, recipe: str = "int8"
) -> Quantized:
    """A tiny model with these layers; full attention and a window have ropes of their own in Gemma 3."""
    shape = next(one for one in SHAPES if one.model_type == model_type)
    options = {**shape.options, "num_hidden_layers": len(layer_types), "layer_types": layer_types}
    return make(directory, replace(shape, options=options), recipe, write_tokenizer)


def random_values(name: str, shape: Any, family: Any) -> Any:
    """Numbers like those of a trained model: norms around what multiplies by one, matrices that keep magnitudes."""
    import zlib

    import numpy as np

    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(tuple(shape)).astype(np.float32)
    if len(shape) == 2:
        return values * np.float32(1.2 / shape[1] ** 0.5)
    norm = name.endswith(("weight", "layer_scalar"))
    return values * np.float32(0.1) + np.float32((1.0 - family.norm_offset) if norm else 0.0)
