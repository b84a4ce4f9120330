"""Gemma 3n as published, with eyes and ears: the text part is taken, and is all that is exported."""

from . import SENSES, Family, text_part

FAMILY = Family(model_type="gemma3n", rewrite=text_part, senses=SENSES)
