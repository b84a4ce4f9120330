"""RoBERTa (arXiv:1907.11692): BERT without token types; positions are counted from behind the padding token's id."""

from . import Family

FAMILY = Family(
    model_type="roberta",
    kind="encoder",
    embedding="roberta.embeddings.word_embeddings.weight",
    head="",
    heads=("lm_head", "classifier", "qa_outputs"),
    filler="lm_head",
    filler_table="lm_head.decoder.weight",
    positions_behind_padding=True,
    layers="roberta.encoder.layer",
    feeds={"attention.self.value": ("attention.output.dense",)},
)
