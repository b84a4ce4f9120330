"""Gemma 4 as published, with eyes and ears: the text part is taken, and is all that is exported."""

from . import SENSES, Family, text_part

FAMILY = Family(model_type="gemma4", rewrite=text_part, senses=SENSES)
