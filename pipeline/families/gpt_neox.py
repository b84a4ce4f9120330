"""Pythia and GPT-NeoX (arXiv:2304.01373): fused projections, partial rotary, parallel residual, LayerNorm."""

from . import Family

FAMILY = Family(
    model_type="gpt_neox",
    embedding="gpt_neox.embed_in.weight",
    layers="gpt_neox.layers",
    stored_names={"embed_out.weight": "lm_head.weight"},
    feeds={
        "input_layernorm": ("attention.query_key_value",),
        "post_attention_layernorm": ("mlp.dense_h_to_4h",),
    },
)
