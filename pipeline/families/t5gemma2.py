"""T5Gemma 2 (arXiv:2512.14856): Gemma 3 twice, as encoder and decoder; one attention looks at answer and source alike.

The text part is taken. What ends an image has a row of its own in the checkpoint, which text never reads.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import UnsupportedModel
from . import SENSES, Family
from .gemma3_text import FAMILY as GEMMA3

DEFAULTS = {"vocab_size": 262208, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
"""transformers' own, which a checkpoint need not write down."""


def with_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same, its vocabulary and special tokens said outside too; an answer begins with the token every text has.

    Raises UnsupportedModel where encoder and decoder are not described.
    """
    if not all(isinstance(config.get(side), Mapping) for side in ("encoder", "decoder")):
        raise UnsupportedModel("config.json of t5gemma2 does not describe encoder and decoder.", "Fetch it again.")
    own = {**DEFAULTS, **{name: config["decoder"][name] for name in DEFAULTS if name in config["decoder"]}}
    said = {name: value for name, value in config.items() if value is not None}
    return {**own, "decoder_start_token_id": own["bos_token_id"], **said}


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
    rewrite=with_tokens,
    senses={"vision_config": SENSES["vision_config"]},
    stored_prefixes={"model.encoder.text_model.": "model.encoder.", "encoder.text_model.": "model.encoder."},
    residual_scale=GEMMA3.residual_scale,
    residual_writers=("post_self_attn_layernorm", "post_feedforward_layernorm"),
)
