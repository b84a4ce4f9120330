"""MiniCPM 1, 2 and 4 (arXiv:2404.06395): llama with scaled embeddings, residuals and logits. Granite computes the same.

transformers has no code for it; the checkpoint's own is not run. The paper's formulas: embeddings × scale_emb, each
block's output × scale_depth / √layers, logits ÷ (hidden / dim_model_base).
"""

from collections.abc import Mapping
from typing import Any

from . import Family

OWN = ("scale_emb", "scale_depth", "dim_model_base", "auto_map", "architectures")


def as_granite(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same model as granite's configuration says it."""
    hidden, layers, heads = (config[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    kept = {name: value for name, value in config.items() if name not in OWN}
    return {
        **kept,
        "model_type": "granite",
        "architectures": ["GraniteForCausalLM"],
        "embedding_multiplier": config.get("scale_emb", 1.0),
        "residual_multiplier": config.get("scale_depth", layers**0.5) / layers**0.5,
        "attention_multiplier": (config.get("head_dim") or hidden // heads) ** -0.5,
        "logits_scaling": hidden / config.get("dim_model_base", hidden),
    }


FAMILY = Family(model_type="minicpm", rewrite=as_granite)
