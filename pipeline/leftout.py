"""What a checkpoint reads besides text: no target gets it, and manifest, reports and ``kobako plan`` say so alike."""

from __future__ import annotations

from collections.abc import Sequence

from . import families
from .codec import read_json
from .contracts import Source


def left_out(source: Source) -> tuple[str, ...]:
    """What a multimodal checkpoint reads besides text, such as ``images``; empty for a model of text alone."""
    path = source.directory / "config.json"
    if source.format == "gguf" or not path.is_file():
        return ()
    config = read_json(path)
    kind = config.get("model_type")
    senses = families.get(kind).senses if kind in families.names() else {}
    # a family's smaller members lack some; a checkpoint that lists none leaves its entries to the code's defaults
    return tuple(word for entry, word in senses.items() if config.get(entry)) or tuple(senses.values())


def text_only(parts: Sequence[str]) -> str:
    """One sentence about what was left out; empty when nothing was."""
    if not parts:
        return ""
    return f"Text only: what the original reads of {' and '.join(parts)} is left out."
