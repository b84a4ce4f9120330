"""Gemma 3n, text part (MatFormer, arXiv:2310.07707; AltUp, arXiv:2301.13310; LAuReL, arXiv:2411.07501).

Per-layer inputs, four residual streams of which one is active, sparse activations in some layers, shared keys and
values. The attention norm is added to by LAuReL besides being projected, so that no scale can leave it.
"""

from . import Family

FAMILY = Family(
    model_type="gemma3n_text",
    feeds={
        "pre_feedforward_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.up_proj": ("mlp.down_proj",),
    },
    fine=("altup.correction_coefs", "altup.prediction_coefs", "altup.modality_router"),
    per_layer_table="model.embed_tokens_per_layer.weight",
    per_layer_projection="model.per_layer_model_projection.weight",
    nested=True,
    stored_prefixes={"model.language_model.": "model."},
)
