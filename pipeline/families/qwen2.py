"""Qwen 2 and 2.5 (arXiv:2407.10671): llama with biases on queries, keys and values."""

from . import Family

FAMILY = Family(model_type="qwen2", litert_lm_model_type="qwen2p5")
