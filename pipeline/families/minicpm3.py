"""MiniCPM3 (arXiv:2404.06395, attention of arXiv:2405.04434): latent queries, keys and values; MiniCPM's multipliers.

What is cached are keys and values, not the latent vectors (`kobako.pipeline.reference.latent`).
"""

from . import Family

FAMILY = Family(
    model_type="minicpm3",
    feeds={
        "input_layernorm": ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"),
        "self_attn.q_a_layernorm": ("self_attn.q_b_proj",),
        "self_attn.kv_a_layernorm": ("self_attn.kv_b_proj",),
        "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.up_proj": ("mlp.down_proj",),
    },
)
