"""Gemma 3, text only (arXiv:2503.19786): sandwich norms, q/k norm, five layers that slide for each that does not."""

from . import Family

FAMILY = Family(
    model_type="gemma3_text",
    feeds={
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "pre_feedforward_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.up_proj": ("mlp.down_proj",),
    },
    norm_offset=1.0,
    residual_scale=0.125,  # the residual stream of the 270M reaches 104,050, float16 ends at 65,504
    residual_writers=("post_attention_layernorm", "post_feedforward_layernorm"),
    gguf_architecture="gemma3",
    gguf_parts={
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
    gguf_norms_offset=1.0,
    gguf_config={
        "architectures": ["Gemma3ForCausalLM"],
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
    },
    gguf_window_pattern=6,
)
