"""DistilBERT (arXiv:1910.01108): BERT with half the layers, without token types."""

from . import Family

FAMILY = Family(
    model_type="distilbert",
    kind="encoder",
    embedding="distilbert.embeddings.word_embeddings.weight",
    head="",
    heads=("pre_classifier", "classifier", "qa_outputs", "vocab_transform", "vocab_layer_norm", "vocab_projector"),
    filler="vocab_transform",
    filler_table="vocab_projector.weight",
    layers="distilbert.transformer.layer",
    feeds={"attention.v_lin": ("attention.out_lin",)},
)
