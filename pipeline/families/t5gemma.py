"""T5Gemma (arXiv:2504.06225): Gemma 2 twice, as encoder and decoder, each with a table and a width of its own.

What slides in the encoder reaches a whole window back and another ahead; of the source the decoder sees everything.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import UnsupportedModel
from . import Family
from .gemma2 import FAMILY as GEMMA2

DEFAULTS = {"vocab_size": 256000, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
"""transformers' own, which a checkpoint need not write down."""


def with_tokens(config: Mapping[str, Any], defaults: Mapping[str, int] = DEFAULTS) -> dict[str, Any]:
    """The same, its vocabulary and special tokens said outside too; an answer begins with the token every text has.

    Raises UnsupportedModel where encoder and decoder are not described.
    """
    if not all(isinstance(config.get(side), Mapping) for side in ("encoder", "decoder")):
        raise UnsupportedModel(
            f"config.json of {config['model_type']} does not describe encoder and decoder.", "Fetch it again."
        )
    own = {**defaults, **{name: config["decoder"][name] for name in defaults if name in config["decoder"]}}
    said = {name: value for name, value in config.items() if value is not None}
    return {**own, "decoder_start_token_id": own["bos_token_id"], **said}


FAMILY = Family(
    model_type="t5gemma",
    kind="seq2seq",
    embedding="model.decoder.embed_tokens.weight",
    source_embedding="model.encoder.embed_tokens.weight",
    head="lm_head.out_proj.weight",
    layers="model.decoder.layers",
    cross=("cross_attn.k_proj", "cross_attn.v_proj"),
    window_each_way=True,
    feeds={},
    norm_offset=GEMMA2.norm_offset,
    rewrite=with_tokens,
    residual_scale=GEMMA2.residual_scale,
    residual_writers=("post_self_attn_layernorm", "post_cross_attn_layernorm", "post_feedforward_layernorm"),
)
