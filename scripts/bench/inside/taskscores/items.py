"""The texts to work on and what a good answer is: ``summaries.jsonl`` and ``translations.jsonl`` beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LANGUAGES = ("fr", "de", "es")
TASKS = ("summarize", "translate")


@dataclass(frozen=True)
class Item:
    """One thing to ask.

    Attributes:
        cluster: items of one cluster share their text: they are drawn together when resampling.
        to: language of the answer, as tasks know it; None = the task has no languages to choose from.
        reference: a good answer, written by a person.
    """

    task: str
    cluster: str
    text: str
    to: str | None
    reference: str


def records(name: str) -> list[Mapping[str, str]]:
    """The lines of an item file."""
    text = (HERE / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def items_for(task: str, limit: int | None = None) -> list[Item]:
    """All items of a task, or the first `limit` texts of them (a text to translate makes one item a language)."""
    if task == "summarize":
        return [Item(task, one["id"], one["text"], None, one["summary"]) for one in records("summaries")[:limit]]
    return [
        Item(task, one["id"], one["en"], to, one[to]) for to in LANGUAGES for one in records("translations")[:limit]
    ]
