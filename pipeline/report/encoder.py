"""What reports say of encoders: other figures than those of models that write text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import words

HEADS = {
    "embed": "Every text becomes a vector",
    "classify": "Every text gets labels",
    "tag": "Every word of a text gets a label",
}


def is_encoder(data: Mapping[str, Any]) -> bool:
    """Whether the report is of an encoder."""
    return bool(data.get("head"))


def head_words(data: Mapping[str, Any]) -> str:
    """What the answers are."""
    head = data["head"]
    if head["task"] in ("classify", "tag"):
        shown = words.listed([str(label) for label in head["labels"][:8]])
        more = f" and {len(head['labels']) - 8} more" if len(head["labels"]) > 8 else ""
        return f"{HEADS[head['task']]}: {shown}{more}."
    if head["task"] == "fill-mask":
        return f"It tells which word {head['mask']} stands for, of {head['size']} tokens."
    if head["task"] == "answer":
        return "It reads a question and a passage, and tells which words of the passage are the answer."
    how = {"mean": "the mean over the text's tokens", "cls": "the first token's state"}[head["pooling"]]
    normalized = ", of length 1" if head["normalize"] else ""
    assumed = "" if head["stated"] else " The checkpoint does not tell its pooling; this is the usual default."
    return f"{HEADS['embed']} of {head['size']} numbers{normalized}: {how}.{assumed}"


def closeness(found: Mapping[str, Any], task: str, prefix: str = "") -> str:
    """A mean distance as what it is: a cosine, or a divergence."""
    distance = found[f"{prefix}distance"]
    return f"cosine {1.0 - distance:.6f}" if task == "embed" else f"KL {words.small(distance)}"


def quality_note(found: Mapping[str, Any], task: str) -> str:
    """The second figure of an encoder's quality."""
    if task == "embed":
        return f"finds {found['found']} of {found['questions']} passages"
    chosen = {"answer": "span", "tag": "tags"}.get(task, "label")
    return f"same {chosen} {words.percent(found['quality_agreement'])}"
