"""Gemma 2 (arXiv:2408.00118): sandwich norms, soft caps on scores and logits, every other layer slides."""

from . import Family

FAMILY = Family(
    model_type="gemma2",
    feeds={
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "pre_feedforward_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.up_proj": ("mlp.down_proj",),
    },
    norm_offset=1.0,
    residual_scale=0.125,  # as for Gemma 3, whose residual stream leaves float16's range
    residual_writers=("post_attention_layernorm", "post_feedforward_layernorm"),
)
