"""BERT (arXiv:1810.04805) and what is built as it is: BioBERT, FinBERT, TinyBERT, MiniLM, BGE, GTE, E5.

A norm behind each block feeds the next block and the residual alike, so only values can be smoothed: attention mixes
them channel by channel.
"""

from . import Family

FAMILY = Family(
    model_type="bert",
    kind="encoder",
    embedding="bert.embeddings.word_embeddings.weight",
    head="",
    heads=("cls", "classifier", "qa_outputs"),
    filler="cls",
    filler_table="cls.predictions.decoder.weight",
    layers="bert.encoder.layer",
    feeds={"attention.self.value": ("attention.output.dense",)},
    stored_ends={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},  # of TensorFlow's days
)
