"""What a build will need, from config.json alone: parameters, memory, disk, package size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import families
from .contracts import Recipe
from .seq2seq.limits import is_seq2seq, sides

BASE_RSS_BYTES = {
    "load": 0.35e9,
    "quantize": 1.5e9,
    "original": 1.5e9,
    "expect": 1.5e9,
    "executorch": 0.75e9,
    "coreml": 1.0e9,
    "litert": 1.2e9,
}
"""Resident memory of a stage's process before the model: interpreter and vendors, measured on Linux x86-64."""
RSS_BYTES_PER_PARAMETER = {
    "load": 0.0,
    "quantize": 2.6,
    "original": 2.6,
    "expect": 2.6,
    "executorch": 1.7,
    "coreml": 3.0,
    "litert": 2.8,
}
"""Growth with the model. Of a target it is that of the proof, whose runtime packs the weights once more (an export
holds none of them), between SmolLM2-135M and a random llama of 1.2 billion in int8. Of `quantize`, `original` and
`expect` it is what the budgets of `kobako.pipeline.reference.residence` are made for: 1.3 × the checkpoint in
bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes; `rss_bytes` by stage or target."""

    parameters: int
    rss_bytes: Mapping[str, int]
    weights_bytes: int
    disk_bytes: int


OTHER_NAMES = {
    "hidden_size": ("n_embd", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "intermediate_size": ("n_inner", "hidden_dim"),
}
"""What GPT-2 and DistilBERT call it."""


def entry(config: Mapping[str, Any], name: str) -> Any:
    """An entry of config.json under any of its names, or None."""
    return next((config[one] for one in (name, *OTHER_NAMES[name]) if config.get(one)), None)


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of an encoder that kobako knows."""
    kind = str(config.get("model_type"))
    return kind in families.names() and families.get(kind).kind == "encoder"


def parameters_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """(parameters of the linear layers, parameters of embedding and untied head) of a model's config.json.

    Raises KeyError when it does not tell its sizes.
    """
    if is_seq2seq(config):
        return seq2seq_parameters_of(config)
    hidden, layers, heads = (entry(config, name) for name in list(OTHER_NAMES)[:3])
    if hidden is None or layers is None or heads is None:
        raise KeyError("hidden_size, num_hidden_layers or num_attention_heads")
    inner = entry(config, "intermediate_size") or 4 * hidden
    widths = inner if isinstance(inner, list) else [inner] * layers  # Gemma 3n: each layer's own
    own = config.get("per_layer_config") or {}
    linear = sum(
        layer_parameters({**config, "intermediate_size": width, **own.get(str(index), {})}, hidden)
        for index, width in enumerate(widths)
    )
    tables = 1 if config.get("tie_word_embeddings", True) else 2
    return linear, tables * int(config["vocab_size"]) * hidden


def layer_parameters(config: Mapping[str, Any], hidden: int) -> int:
    """Parameters of the linear layers of one layer with this config."""
    matrices = 2 if is_encoder(config) else 3  # a decoder's third is the gate
    attention = latent_attention(config, hidden) if config.get("kv_lora_rank") else plain_attention(config, hidden)
    return attention + matrices * hidden * int(config["intermediate_size"])


def plain_attention(config: Mapping[str, Any], hidden: int, source: int = 0) -> int:
    """Parameters of queries, keys, values and output; keys and values are made of `source` numbers, or of `hidden`."""
    heads = int(entry(config, "num_attention_heads"))
    kv_heads, head_dim = int(config.get("num_key_value_heads") or heads), int(config.get("head_dim") or hidden // heads)
    return 2 * head_dim * (hidden * heads + (source or hidden) * kv_heads)


def latent_attention(config: Mapping[str, Any], hidden: int) -> int:
    """The same where keys and values, and perhaps queries, come out of narrow vectors (`reference.latent`)."""
    heads, rank = int(entry(config, "num_attention_heads")), int(config["kv_lora_rank"])
    turned = int(config["qk_rope_head_dim"])
    key_dim, value_dim = int(config["qk_nope_head_dim"]) + turned, int(config.get("v_head_dim") or hidden // heads)
    narrow = int(config.get("q_lora_rank") or 0)
    queries = narrow * (hidden + heads * key_dim) if narrow else hidden * heads * key_dim
    expanded = rank * heads * (key_dim - turned + value_dim)
    return queries + hidden * (rank + turned) + expanded + heads * value_dim * hidden


def seq2seq_parameters_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """The same of an encoder-decoder, whose decoder layers attend twice, T5Gemma 2's once. Raises KeyError."""
    if parts := sides(config):
        return parameters_of_sides(config, *parts)
    hidden, vocabulary = int(config["d_model"]), int(config["vocab_size"])
    tables = (1 if config.get("tie_word_embeddings", True) else 2) * vocabulary * hidden
    if "d_kv" in config:  # T5
        matrices, inner = 3 if "gated" in str(config.get("feed_forward_proj")) else 2, int(config["d_ff"])
        attention, layers = 4 * hidden * int(config["d_kv"]) * int(config["num_heads"]), int(config["num_layers"])
        decoder = int(config.get("num_decoder_layers") or layers)
        return layers * attention + 2 * decoder * attention + (layers + decoder) * matrices * hidden * inner, tables
    attention = 4 * hidden * hidden
    return sum(
        int(config[f"{side}_layers"]) * (times * attention + 2 * hidden * int(config[f"{side}_ffn_dim"]))
        for side, times in (("encoder", 1), ("decoder", 2))
    ), tables


def parameters_of_sides(
    config: Mapping[str, Any], encoder: Mapping[str, Any], decoder: Mapping[str, Any]
) -> tuple[int, int]:
    """The same where each side has a configuration of its own. Raises KeyError."""
    family = families.get(config["model_type"])
    source, hidden = (int(side["hidden_size"]) for side in (encoder, decoder))
    linear = int(encoder["num_hidden_layers"]) * layer_parameters(encoder, source)
    crossing = 0 if family.merged else plain_attention(decoder, hidden, source)
    linear += int(decoder["num_hidden_layers"]) * (layer_parameters(decoder, hidden) + crossing)
    widths = hidden * (1 if config.get("tie_word_embeddings", True) else 2) + (source if family.source_embedding else 0)
    return linear, widths * int(config["vocab_size"])


def table_parameters_of(config: Mapping[str, Any]) -> int:
    """Parameters of the table of per-layer inputs; 0 when there is none."""
    width = int(config.get("hidden_size_per_layer_input") or 0)
    return (
        width * int(config["num_hidden_layers"]) * int(config.get("vocab_size_per_layer_input") or config["vocab_size"])
        if width
        else 0
    )


def table_bytes(config: Mapping[str, Any], recipe: Recipe) -> int:
    """Bytes of that table's codes."""
    return table_parameters_of(config) * recipe.embedding_bits // 8


def weights_bytes(config: Mapping[str, Any], recipe: Recipe) -> int:
    """Bytes of all codes and 16-bit scales."""
    linear, embedding = parameters_of(config)
    per_group = 16 / recipe.group_size if recipe.group_size else 0.0
    if recipe.asymmetric and recipe.group_size:
        per_group += 8 / recipe.group_size  # the block's shift
    grouped_table = per_group if recipe.embedding_bits == 4 else 0.0
    return table_bytes(config, recipe) + int(
        (linear * (recipe.weight_bits + per_group) + embedding * (recipe.embedding_bits + grouped_table)) / 8
    )


def estimate(config: Mapping[str, Any], recipe: Recipe, targets: list[str]) -> Estimate:
    """What building `targets` will take."""
    parameters = sum(parameters_of(config))
    stages = ["load", "quantize", "original", "expect", *targets]
    weights = weights_bytes(config, recipe)
    return Estimate(
        parameters=parameters,
        rss_bytes={
            stage: int(BASE_RSS_BYTES.get(stage, 1e9) + RSS_BYTES_PER_PARAMETER.get(stage, 10.0) * parameters)
            for stage in stages
        },
        weights_bytes=weights,
        disk_bytes=int(weights * (2 + 3 * len(targets)) + 512 * 4 * 3 * config["vocab_size"]),
    )


def jobs_that_fit(need: Estimate, stages: Iterable[str], jobs: int, limit_bytes: int) -> int:
    """How many of `stages` may run side by side, at most `jobs`: the largest of them must fit into memory together."""
    largest = sorted((need.rss_bytes[stage] for stage in stages), reverse=True)
    return max([1, *(count for count in range(2, min(jobs, len(largest)) + 1) if sum(largest[:count]) <= limit_bytes)])
