"""Llama 2 and 3, SmolLM2, TinyLlama and their like (arXiv:2302.13971)."""

from . import Family

FAMILY = Family(model_type="llama", gguf_architecture="llama", gguf_rope_permuted=True)
