"""Marian (arXiv:1804.00344), as OPUS-MT has it: sinusoidal positions, norms behind the blocks, a bias of the logits."""

from . import Family

FAMILY = Family(
    model_type="marian",
    kind="seq2seq",
    embedding="model.shared.weight",
    layers="model.decoder.layers",
    cross=("encoder_attn.k_proj", "encoder_attn.v_proj"),
    feeds={},
    stored_names={"final_logits_bias": "final_logits_bias"},
)
