"""Published shapes, and small ones that grow along one axis; all with random weights and SmolLM2's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Shape:
    """An architecture and the settings of its config.json that are not transformers' defaults."""

    model_type: str
    settings: Mapping[str, Any] = field(default_factory=dict)


LONGROPE_FACTORS = 48
PUBLISHED: Mapping[str, Shape] = {
    "smollm2-135m": Shape(
        "llama",
        {
            "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
        },
    ),
    "llama-3.2-1b": Shape(
        "llama",
        {
            "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True,
        },
    ),
    "phi-4-mini": Shape(
        "phi3",
        {
            "vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
            "num_attention_heads": 24, "num_key_value_heads": 8, "tie_word_embeddings": True,
            "partial_rotary_factor": 0.75, "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096, "sliding_window": 262144, "pad_token_id": 0,
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
                "original_max_position_embeddings": 4096, "short_factor": [1.0] * LONGROPE_FACTORS,
                "long_factor": [1.0 + index for index in range(LONGROPE_FACTORS)],
            },
        },
    ),
    "gemma-3n-e2b": Shape(
        "gemma3n_text",
        {"num_hidden_layers": 30, "intermediate_size": 8192, "num_kv_shared_layers": 10},
    ),
    "gemma-4-e2b": Shape(
        "gemma4_text",
        {
            "hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35, "num_attention_heads": 8,
            "num_key_value_heads": 1, "num_kv_shared_layers": 20, "use_double_wide_mlp": True,
            "final_logit_softcapping": 30.0,
            "layer_types": [
                "full_attention" if index % 5 == 4 else "sliding_attention" for index in range(35)
            ],
        },
    ),
}  # fmt: skip
"""Of the text part. Gemma 3n's other sizes are transformers' defaults."""

BASE: Mapping[str, Any] = {
    "vocab_size": 49152, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
CONTEXT_TOKENS = 1024


@dataclass(frozen=True)
class Axis:
    """What grows: a name for the column, its values, and the llama of each."""

    title: str
    values: tuple[int, ...]

    def shape(self, value: int) -> Shape:
        """The model at one point."""
        if self.title == "layers":
            return Shape("llama", {**BASE, "num_hidden_layers": value})
        if self.title == "hidden size":
            heads = value // 64
            return Shape(
                "llama",
                {**BASE, "hidden_size": value, "intermediate_size": 3 * value, "num_attention_heads": heads,
                 "num_key_value_heads": heads // 2},
            )  # fmt: skip
        if self.title == "vocabulary":
            return Shape("llama", {**BASE, "vocab_size": value, "hidden_size": 512})
        return Shape("llama", {**BASE, "max_position_embeddings": value})

    def context_tokens(self, value: int) -> int:
        """The context at one point."""
        return value if self.title == "context" else CONTEXT_TOKENS


AXES: Mapping[str, Axis] = {
    "depth": Axis("layers", (2, 4, 8, 16, 30)),
    "width": Axis("hidden size", (256, 512, 1024, 2048)),
    "vocabulary": Axis("vocabulary", (50_000, 100_000, 200_000, 260_000)),
    "context": Axis("context", (512, 1024, 2048, 4096)),
}
