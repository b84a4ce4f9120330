"""Granite 3 (IBM): llama with multipliers on embeddings, residuals, attention and logits."""

from . import Family

FAMILY = Family(model_type="granite")
