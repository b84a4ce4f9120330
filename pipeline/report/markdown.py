"""Markdown that says what it was given: text escaped for GitHub and Hugging Face, tables, and the proof's own table."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .facts import targets_of
from .rows import table

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~@])")
_LINE_BREAKS = re.compile(r"\s*[\r\n\x85\u2028\u2029]+\s*")


def text(value: str) -> str:
    """One line of literal text: no markup, no HTML, no mentions, no table cell's end."""
    escaped = _SPECIAL.sub(r"\\\1", html.escape(_LINE_BREAKS.sub(" ", value), quote=False))
    return escaped.replace("://", ":&#47;&#47;")  # a bare address would become a link


def code(value: str) -> str:
    """One line as code, whatever backticks it holds."""
    line = _LINE_BREAKS.sub(" ", value).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(value: str, language: str = "") -> str:
    """A fenced block, with a fence longer than any inside."""
    longest = max((len(run) for run in re.findall("`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{value}\n{fence}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def proof_table(data: Mapping[str, Any]) -> str:
    """The proof's table: one row per figure, one column per target."""
    rows = []
    for row in table(data):
        cells = []
        for cell in row.cells:
            sign = {True: "✅ ", False: "❌ ", None: ""}[cell.good]
            note = f" ({text(cell.note)})" if cell.note else ""
            cells.append(f"{sign}{text(cell.text)}{note}")
        rows.append([f"{text(row.label)}<br><sub>{text(row.meaning)}</sub>", *cells])
    return markdown_table(["", *(text(target.title) for target in targets_of(data))], rows)
