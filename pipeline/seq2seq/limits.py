"""What an encoder-decoder may be built as: recipes, and the context where none was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import families
from ..contracts import RECIPES, ExportOptions, Recipe
from ..errors import UnsupportedRecipe
from ..families import text_part

CONTEXT_TOKENS = 256
"""A long paragraph: source and answer have so many slots each, and static graphs pay for all of them at every token."""


def is_seq2seq(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of an encoder-decoder that kobako knows."""
    kind = str(config.get("model_type"))
    return kind in families.names() and families.get(kind).kind == "seq2seq"


def sides(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Configurations of encoder and decoder, where each has one of its own (T5Gemma 1 and 2); otherwise none."""
    if not is_seq2seq(config) or "decoder" not in config:
        return ()
    encoder = config["encoder"]
    return text_part(encoder) if families.get(config["model_type"]).senses else encoder, config["decoder"]


def check_recipe(config: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise UnsupportedRecipe for one that reads a calibration text: that is done for one list of layers only.

    Outliers of an encoder-decoder stay where they are in the other recipes too.
    """
    if is_seq2seq(config) and recipe.calibration_sha256:
        raise UnsupportedRecipe("nothing of an encoder-decoder model is calibrated.", "Leave --calibration out.")
    if is_seq2seq(config) and recipe.asymmetric:
        known = [one.name for one in RECIPES.values() if not one.asymmetric]
        raise UnsupportedRecipe(
            f"recipe {recipe.name} is calibrated layer by layer, which is not done for encoder-decoder models.",
            f"Use --recipe int8, or another of {', '.join(known)}.",
        )


def own_options(options: ExportOptions, config: Mapping[str, Any]) -> ExportOptions:
    """The options with the context of an encoder-decoder for which none was asked."""
    longest = int(config.get("max_position_embeddings") or CONTEXT_TOKENS)
    return replace(options, context_tokens=min(longest, CONTEXT_TOKENS))
