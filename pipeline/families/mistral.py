"""Mistral 7B and its like (arXiv:2310.06825): llama whose layers may all attend within a sliding window."""

from . import Family

FAMILY = Family(model_type="mistral")
