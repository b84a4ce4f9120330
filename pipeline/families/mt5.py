"""mT5 (arXiv:2010.11934): T5 with gated feed-forward layers and a head of its own."""

from dataclasses import replace

from .t5 import FAMILY as T5

FAMILY = replace(T5, model_type="mt5")
