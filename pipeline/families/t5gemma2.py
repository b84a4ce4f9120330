"""T5Gemma 2 (arXiv:2512.14856): Gemma 3 twice, as encoder and decoder; one attention looks at answer and source alike.

The text part is taken. What ends an image has a row of its own in the checkpoint, which text never reads.
"""

from functools import partial

from . import SENSES, Family
from .gemma3_text import FAMILY as GEMMA3
from .t5gemma import DEFAULTS, with_tokens

FAMILY = Family(
    model_type="t5gemma2",
    kind="seq2seq",
    embedding="model.encoder.embed_tokens.weight",
    head="lm_head.out_proj.weight",
    layers="model.decoder.layers",
    cross=("self_attn.k_proj", "self_attn.v_proj"),
    cross_norm="self_attn.k_norm",
    merged=True,
    feeds={},
    norm_offset=GEMMA3.norm_offset,
    rewrite=partial(with_tokens, defaults={**DEFAULTS, "vocab_size": 262208}),
    senses={"vision_config": SENSES["vision_config"]},
    stored_prefixes={"model.encoder.text_model.": "model.encoder.", "encoder.text_model.": "model.encoder."},
    residual_scale=GEMMA3.residual_scale,
    residual_writers=("post_self_attn_layernorm", "post_feedforward_layernorm"),
)
