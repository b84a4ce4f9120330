"""Swift and Kotlin can be compiled nowhere the suite runs; that they parse is the least that can be shown.

The grammars are tree-sitter's. They know syntax and nothing of types or of Apple's and Google's libraries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_kotlin
import tree_sitter_swift
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).parents[2]
LANGUAGES = {"swift": Language(tree_sitter_swift.language()), "kotlin": Language(tree_sitter_kotlin.language())}
SUFFIXES = {".swift": "swift", ".kt": "kotlin", ".kts": "kotlin"}


def mistakes(language: str, source: str) -> list[str]:
    """Where the text is not of the language, as ``line: what``."""

    def walk(node: Node) -> Iterator[Node]:
        if node.is_error or node.is_missing:
            yield node
        elif node.has_error:
            for child in node.children:
                yield from walk(child)

    root = Parser(LANGUAGES[language]).parse(source.encode()).root_node
    return [f"{node.start_point.row + 1}: {node.type} {(node.text or b'')[:60]!r}" for node in walk(root)]


def native_files() -> list[Path]:
    found = (ROOT / "mobile_demo" / "modules").rglob("*")
    return sorted(path for path in found if path.suffix in SUFFIXES and "node_modules" not in path.parts)


def pages() -> list[tuple[str, str, str]]:
    """Page, language and code of every Swift and Kotlin block in docs/."""
    block = re.compile(r"```(swift|kotlin)\n(.*?)```", re.DOTALL)
    found = sorted((ROOT / "docs").rglob("*.md"))
    texts = [(page.name, page.read_text(encoding="utf-8")) for page in found]
    return [(name, *match.groups()) for name, text in texts for match in block.finditer(text)]


@pytest.mark.parametrize("path", native_files(), ids=lambda path: path.name)
def test_sources_parse(path: Path) -> None:
    assert mistakes(SUFFIXES[path.suffix], path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("page", "language", "code"), pages(), ids=lambda value: value[:20])
def test_the_code_of_pages_parses(page: str, language: str, code: str) -> None:
    assert mistakes(language, code) == [], page


def test_there_is_something_to_parse() -> None:
    assert {SUFFIXES[path.suffix] for path in native_files()} == {"swift", "kotlin"}
    assert {language for _, language, _ in pages()} == {"swift", "kotlin"}


@pytest.mark.parametrize(
    ("language", "code"),
    [("swift", "func f() -> Int {\n  let x = \n}\n"), ("kotlin", "fun f(): Int {\n  val x = \n  return (1\n}\n")],
)
def test_what_is_wrong_is_found(language: str, code: str) -> None:
    assert mistakes(language, code) != []
