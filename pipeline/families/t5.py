"""T5 (arXiv:1910.10683), T5 v1.1 and Flan-T5: learned biases of relative positions, scores that are not scaled."""

from . import Family

FAMILY = Family(
    model_type="t5",
    kind="seq2seq",
    embedding="shared.weight",
    heads=("encoder", "decoder"),
    layers="decoder.block",
    cross=("layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"),
    feeds={},
)
