"""Phi-3, Phi-3.5 mini, Phi-4 and Phi-4-mini (arXiv:2404.14219, arXiv:2503.01743): fused projections, longrope."""

from . import Family

FAMILY = Family(
    model_type="phi3",
    feeds={
        "input_layernorm": ("self_attn.qkv_proj",),
        "post_attention_layernorm": ("mlp.gate_up_proj",),
    },
    stored_ends={"base_layer.weight": "weight"},  # Phi-4-multimodal's, beside its adapters for images and speech
)
