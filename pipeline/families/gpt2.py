"""GPT-2, Cerebras-GPT (arXiv:2304.03208) and LLM-jp 1: learned positions; matrices are stored transposed."""

from . import Family

FAMILY = Family(
    model_type="gpt2",
    embedding="transformer.wte.weight",
    layers="transformer.h",
    feeds={"ln_1": ("attn.c_attn",), "ln_2": ("mlp.c_fc",)},
    transposed=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
)
