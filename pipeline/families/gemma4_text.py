"""Gemma 4, text part: per-layer inputs, shared keys and values, head sizes by kind of layer, a scale for each layer.

Nothing here is added to norms, unlike in Gemma 1 to 3.
"""

from . import Family

FAMILY = Family(
    model_type="gemma4_text",
    feeds={
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "pre_feedforward_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.up_proj": ("mlp.down_proj",),
    },
    per_layer_table="model.embed_tokens_per_layer.weight",
    stored_prefixes={"model.language_model.": "model."},
)
