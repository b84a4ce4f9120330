"""Phi-4-multimodal as first published: the same model under the name that its own repository's code has."""

from . import Family
from .phi4_multimodal import as_phi3

FAMILY = Family(model_type="phi4mm", rewrite=as_phi3, senses={"vision_lora": "images", "speech_lora": "audio"})
