"""What the answer of an encoder-decoder begins and ends with: JSON values that travel in an artifact's details."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadArtifact, UnsupportedModel
from ..tokens import stop_ids

BEGIN, STOP, NEVER, LANGUAGES = "begin_ids", "stop_ids", "never_ids", "languages"

NAMES_LANGUAGES = ("m2m_100",)
"""Architectures whose prompts name the languages by tokens."""


def facts_of(directory: Path) -> dict[str, Any]:
    """``begin_ids``, ``stop_ids``, ``never_ids`` (Marian's padding, never an answer), and whether prompts name
    ``languages``, of the model in a Reference's or a Quantized's directory.

    Raises UnsupportedModel when it does not say what an answer begins with.
    """
    settings = {
        **json.loads((directory / "config.json").read_text()),
        **json.loads((directory / "generation_config.json").read_text()),
    }
    start = settings.get("decoder_start_token_id")
    if not isinstance(start, int):
        raise UnsupportedModel(
            "the checkpoint does not say what an answer begins with (decoder_start_token_id).",
            "Add it to generation_config.json as its makers document it.",
        )
    forced = settings.get("forced_bos_token_id")
    return {
        BEGIN: [start, *([forced] if isinstance(forced, int) else [])],
        STOP: list(stop_ids(directory)),
        NEVER: [one[0] for one in settings.get("bad_words_ids") or [] if len(one) == 1],
        LANGUAGES: settings.get("model_type") in NAMES_LANGUAGES,
    }


def ids_in(details: Mapping[str, Any], name: str) -> list[int]:
    """One of the two lists in an artifact's details. Raises BadArtifact."""
    found = details.get(name)
    if not isinstance(found, list) or not all(isinstance(one, int) for one in found) or not (found or name == NEVER):
        raise BadArtifact(f"the artifact does not tell its {name}.", "Pull or build the package again.")
    return found
