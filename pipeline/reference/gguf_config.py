"""What a GGUF file's metadata says about a model, as a Hugging Face configuration and parameter names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..contracts import FloatArray
from ..errors import IntegrityError, UnsupportedModel
from ..families import Family
from .gguf import Gguf

LAYER_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LAYER_TENSOR = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
ROPE_FACTORS = "rope_freqs.weight"
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""What Llama 3.1 to 3.3 use; GGUF stores only the resulting factors, so these are tried and compared."""


def parameter_names(header: Gguf, family: Family) -> dict[str, str]:
    """Hugging Face parameter names, each with the GGUF tensor that holds it. Raises UnsupportedModel for others."""
    fixed = {
        "token_embd.weight": family.embedding,
        "output_norm.weight": family.layers.rpartition(".")[0] + ".norm.weight",
        "output.weight": family.head,
    }
    parts = {**LAYER_PARTS, **family.gguf_parts}
    names: dict[str, str] = {}
    for tensor in header.tensors:
        if tensor == ROPE_FACTORS:
            continue
        layer = LAYER_TENSOR.fullmatch(tensor)
        if tensor in fixed:
            names[fixed[tensor]] = tensor
        elif layer and layer[2] in parts:
            names[f"{family.layers}.{layer[1]}.{parts[layer[2]]}.{layer[3]}"] = tensor
        else:
            raise UnsupportedModel(
                f"{header.path.name} holds a tensor {tensor} that a plain {family.model_type} has not.",
                "Mixtures of experts and other variants of this architecture cannot be exported.",
            )
    return names


def configuration(header: Gguf, family: Family, read: Callable[[str], FloatArray]) -> dict[str, Any]:
    """``config.json`` for a GGUF file. `read` gives a tensor's values.

    Raises UnsupportedModel for rope variants, experts and half-biased attention, IntegrityError for missing fields.
    """
    heads, hidden = field(header, "attention.head_count"), field(header, "embedding_length")
    if not isinstance(heads, int) or header.key("expert_count", 0):
        raise UnsupportedModel(f"{header.path.name} has experts or heads that differ per layer.", "Try a dense model.")
    if not family.gguf_window_pattern and 0 < header.key("attention.sliding_window", 0) < field(
        header, "context_length"
    ):
        raise UnsupportedModel(f"{header.path.name} attends within a sliding window.", "Try another model.")
    head_dim = header.key("attention.key_length", header.key("rope.dimension_count", hidden // heads))
    if header.key("rope.dimension_count", head_dim) != head_dim:
        raise UnsupportedModel(f"{header.path.name} rotates a part of each head only.", "Try another model.")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": family.model_type,
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "hidden_size": hidden,
        "intermediate_size": field(header, "feed_forward_length"),
        "num_hidden_layers": field(header, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.key("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": field(header, "context_length"),
        "rms_norm_eps": shortest(field(header, "attention.layer_norm_rms_epsilon")),
        "rope_parameters": rope(header, head_dim, read),
        "attention_bias": biased(header, ("attn_q", "attn_k", "attn_v", "attn_output")),
        "mlp_bias": biased(header, ("ffn_gate", "ffn_up", "ffn_down")),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": header.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": header.metadata.get("tokenizer.ggml.padding_token_id"),
        "dtype": "float32",
        **family.gguf_config,
    }
    return config | (sliding(header, family, config) if family.gguf_window_pattern else {})


def sliding(header: Gguf, family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a model whose layers attend within a window, but for every so many-th; each kind has its own rope."""
    layers, pattern = config["num_hidden_layers"], family.gguf_window_pattern
    return {
        "sliding_window": field(header, "attention.sliding_window"),
        "layer_types": [
            "full_attention" if (index + 1) % pattern == 0 else "sliding_attention" for index in range(layers)
        ],
        "query_pre_attn_scalar": config["head_dim"],
        "rope_parameters": {
            "full_attention": config["rope_parameters"],
            "sliding_attention": {"rope_type": "default", "rope_theta": family.gguf_local_theta},
        },
    }


def field(header: Gguf, name: str) -> Any:
    """A metadata field that must be there. Raises IntegrityError."""
    value = header.key(name)
    if value is None or "token_embd.weight" not in header.tensors:
        raise IntegrityError(
            f"{header.path.name} lacks {header.architecture}.{name} or its token embedding.",
            "Is it a whole model? Vocabulary-only files and adapters are not.",
        )
    return value


def shortest(value: float) -> float:
    """The shortest decimal that a float32 of the file stands for: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def biased(header: Gguf, parts: tuple[str, ...]) -> bool:
    """Whether these matrices have biases; all or none. Raises UnsupportedModel for some."""
    with_bias = [part for part in parts if f"blk.0.{part}.bias" in header.tensors]
    if with_bias and len(with_bias) < len(parts):
        raise UnsupportedModel(
            f"{header.path.name} has biases on {', '.join(with_bias)} only, which llama's configuration cannot say.",
            "Try the model's safetensors form.",
        )
    return bool(with_bias)


def rope(header: Gguf, head_dim: int, read: Callable[[str], FloatArray]) -> dict[str, Any]:
    """``rope_parameters`` of a GGUF file. Raises UnsupportedModel for variants that cannot be stated exactly."""
    theta = shortest(header.key("rope.freq_base", 10000.0))
    kind = header.key("rope.scaling.type", "none")
    if ROPE_FACTORS in header.tensors:
        return llama3_rope(header, theta, head_dim, read(ROPE_FACTORS))
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": shortest(field(header, "rope.scaling.factor"))}
    raise UnsupportedModel(
        f"{header.path.name} scales its rotary embedding by {kind!r}, which no target exports.",
        "Supported: none, linear, llama3.",
    )


def llama3_rope(header: Gguf, theta: float, head_dim: int, factors: FloatArray) -> dict[str, Any]:
    """Parameters that give exactly the stored factors ``[head_dim / 2]``. Raises UnsupportedModel when none do."""
    parameters = {"rope_type": "llama3", "rope_theta": theta, "factor": shortest(float(factors.max())), **LLAMA3_ROPE}
    if not np.allclose(llama3_factors(parameters, head_dim), factors.ravel(), rtol=1e-4):
        raise UnsupportedModel(
            f"{header.path.name} holds rotary factors that are not Llama 3's.", "Try the model's safetensors form."
        )
    return parameters


def llama3_factors(parameters: Mapping[str, Any], head_dim: int) -> FloatArray:
    """How much slower each rotary frequency turns, ``[head_dim / 2]`` (Llama 3.1's scaling)."""
    factor = parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    context = parameters["original_max_position_embeddings"]
    inverse = parameters["rope_theta"] ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    turns = context * inverse / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return np.asarray(1.0 / ((1.0 - smooth) / factor + smooth), dtype=np.float32)
