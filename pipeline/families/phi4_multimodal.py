"""Phi-4-multimodal (arXiv:2503.01743): text reads and writes as Phi-4-mini does, and is all that is exported.

The checkpoint's two LoRA adapters belong to images and to speech. With text alone its makers switch both off, so they
are neither merged nor needed.
"""

from collections.abc import Mapping
from typing import Any

from . import SENSES, Family

OTHERS = ("architectures", "auto_map", "embd_layer", "img_processor", "audio_processor", "vision_lora", "speech_lora")


def as_phi3(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text part as phi3's configuration says it; the stop tokens are those of the makers' own code."""
    stops = config.get("eos_token_id") or [199999, 200020]
    kept = {name: value for name, value in config.items() if name not in (*OTHERS, *SENSES)}
    return {**kept, "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "eos_token_id": stops}


FAMILY = Family(model_type="phi4_multimodal", rewrite=as_phi3, senses=SENSES)
