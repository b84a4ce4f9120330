"""Tiny random encoder-decoders of true architecture: what the contract tests export and compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kobako.pipeline.contracts import RECIPES, Quantized

from tests.families import random_values

CONTEXT = 64
T5: Mapping[str, Any] = {
    "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "decoder_start_token_id": 0,
}  # fmt: skip
BART: Mapping[str, Any] = {
    "d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128, "decoder_ffn_dim": 96, "max_position_embeddings": 128, "scale_embedding": True,
}  # fmt: skip
GEMMA: Mapping[str, Any] = {
    "vocab_size": 384, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "query_pre_attn_scalar": 24, "sliding_window": 11, "sliding_window_pattern": 2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip
GEMMA1: Mapping[str, Any] = {
    "vocab_size": 384, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 32, "query_pre_attn_scalar": 24, "sliding_window": 5, "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 20.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EYES: Mapping[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One encoder-decoder: what is peculiar to it."""

    name: str
    model_type: str
    quirk: str
    options: Mapping[str, Any]


SHAPES = (
    Shape("t5", "t5", "relative positions, tied and scaled head", {**T5, "feed_forward_proj": "relu"}),
    Shape(
        "t5-v1.1", "t5", "gated feed-forward, head of its own",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    Shape(
        "mt5", "mt5", "gated feed-forward, head of its own",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    Shape(
        "marian", "marian", "sinusoidal positions, norms behind, bias of the logits",
        {**BART, "activation_function": "swish", "decoder_start_token_id": 0, "decoder_vocab_size": 384},
    ),
    Shape(
        "m2m_100", "m2m_100", "positions from behind the padding, norms before, language tokens",
        {**BART, "activation_function": "relu", "decoder_start_token_id": 2},
    ),
    Shape(
        "t5gemma", "t5gemma",
        "a table and a width for each side, windows each way, soft caps on scores and logits, shared keys",
        {
            "encoder": {**GEMMA1, "hidden_size": 96, "num_hidden_layers": 2},
            "decoder": {**GEMMA1, "num_hidden_layers": 3},
            "decoder_start_token_id": 1,
        },
    ),
    Shape(
        "t5gemma-own-head", "t5gemma", "head of its own beside two tables",
        {
            "encoder": {**GEMMA1, "num_hidden_layers": 1}, "decoder": {**GEMMA1, "num_hidden_layers": 1},
            "decoder_start_token_id": 1, "tie_word_embeddings": False,
        },
    ),
    Shape(
        "t5gemma2", "t5gemma2",
        "one attention for source and answer, sliding windows, two ropes, shared keys, q/k norm, soft cap",
        {
            "encoder": {"text_config": {**GEMMA, "num_hidden_layers": 2}, "vision_config": EYES,
                        "mm_tokens_per_image": 4, "eoi_token_index": 380},
            "decoder": {**GEMMA, "num_hidden_layers": 3, "final_logit_softcapping": 20.0},
            "decoder_start_token_id": 1,
        },
    ),
)  # fmt: skip


def config_of(shape: Shape) -> Any:
    """The configuration as transformers has it."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        shape.model_type, vocab_size=384, pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape.options
    )


def write_config(directory: Path, shape: Shape) -> None:
    """``config.json`` as checkpoints have it: whether the head is tied is said there."""
    directory.mkdir(parents=True, exist_ok=True)
    config = config_of(shape).to_dict() | {"tie_word_embeddings": shape.options.get("tie_word_embeddings", True)}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text('{"eos_token_id": [2]}')


def values_of(model: Any, family: Any) -> dict[str, Any]:
    """Random numbers for each parameter; T5's table has larger ones, since its tied head divides by their size."""
    values = {name: random_values(name, value.shape, family) for name, value in model.named_parameters()}
    if family.model_type == "t5":
        values[family.embedding] *= 8.0
    return values


def make(directory: Path, shape: Shape, recipe: str, write_tokenizer: Any) -> Quantized:
    """A random model of `shape`, quantized into `directory`."""
    from kobako.pipeline import families
    from kobako.pipeline.contracts import no_progress
    from kobako.pipeline.quantize import quantize_all
    from kobako.pipeline.reference.eager import empty_model_in
    from kobako.pipeline.scheme import parameter_roles
    from kobako.pipeline.weights import WEIGHTS_FILE, write_weights

    write_config(directory, shape)
    write_tokenizer(directory / "tokenizer")
    model, family = empty_model_in(directory), families.get(shape.model_type)
    values = values_of(model, family)
    roles = parameter_roles(model, family)
    write_weights(directory / WEIGHTS_FILE, quantize_all(values, roles, RECIPES[recipe], no_progress))
    return Quantized(
        name=f"tiny-{shape.name}", directory=directory, recipe=RECIPES[recipe], model_type=shape.model_type
    )


def write_checkpoint(directory: Path, shape: Shape, seed: int = 0) -> Path:
    """A random model of `shape` as a Hugging Face directory with a byte-level tokenizer."""
    import torch
    from kobako.pipeline import families
    from kobako.pipeline.reference.eager import empty_model_in
    from safetensors.numpy import save_file

    torch.manual_seed(seed)
    write_config(directory, shape)
    write_tokenizer(directory)
    (directory / "LICENSE").write_text("Apache License 2.0")
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\nRandom weights.\n")
    model, family = empty_model_in(directory), families.get(shape.model_type)
    values = values_of(model, family)
    save_file({stored_as(name, family): value for name, value in values.items()}, directory / "model.safetensors")
    return directory


def stored_as(name: str, family: Any) -> str:
    """What transformers calls a parameter that kobako has under a shorter name."""
    theirs, ours = next(iter(family.stored_prefixes.items()), ("", ""))
    return theirs + name.removeprefix(ours) if name.startswith(ours) else name


def write_tokenizer(directory: Path) -> None:
    """A byte-level tokenizer that ends every text with ``</s>``, and knows tokens of four languages."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    special = ["<pad>", "<s>", "</s>", "__de__", "__en__", "__fr__", "__ja__"]
    vocabulary = {token: index for index, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "pad_token": "<pad>"}))
