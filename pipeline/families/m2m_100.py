"""M2M100 (arXiv:2010.11125) and NLLB (arXiv:2207.04672): one model of many languages, each named by a token."""

from . import Family

FAMILY = Family(
    model_type="m2m_100",
    kind="seq2seq",
    embedding="model.shared.weight",
    layers="model.decoder.layers",
    cross=("encoder_attn.k_proj", "encoder_attn.v_proj"),
    feeds={},
)
