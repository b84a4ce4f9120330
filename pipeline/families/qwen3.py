"""Qwen 3 (arXiv:2505.09388): queries and keys are normed, the head size is its own."""

from . import Family

FAMILY = Family(model_type="qwen3", litert_lm_model_type="qwen3")
