"""A stage's key covers all the code that its result is made by: what the stage imports, and what that imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from kobako import pipeline
from kobako.pipeline.stagecode import CODE, ROOT, SHARED

TARGETS = Path(pipeline.__file__).parent.parent / "targets"
ENTRIES = {
    "load": ["reference/load.py"],
    "quantize": ["quantize.py"],
    "sensitivity": ["sensitivity.py"],
    "original": ["reading.py"],
    "expect": ["expect.py", "encoder/expect.py", "seq2seq/expect.py"],
    "validate": ["validate/__init__.py", "encoder/proof.py", "encoder/standard.py", "seq2seq/proof.py", "standard.py"],
    "measure": ["measure.py", "encoder/measure.py"],
    "package": ["package.py"],
}
NEVER_IN_A_RESULT = {"errors.py", "isolation.py", "jail.py", "names.py", "place.py", "system.py", "cache.py"}
"""What refuses, confines, names or puts things in place: no number in a result comes from there."""


@pytest.mark.parametrize("stage", sorted(ENTRIES))
def test_a_stage_is_keyed_by_all_its_code(stage: str) -> None:
    assert uncovered(stage, [ROOT / name for name in ENTRIES[stage]]) == []


@pytest.mark.parametrize("target", ["coreml", "executorch", "litert"])
def test_an_export_is_keyed_by_all_its_code(target: str) -> None:
    """A target's own folder is covered as a whole."""
    assert uncovered("export", sorted((TARGETS / target).rglob("*.py"))) == []


def test_what_is_named_is_there() -> None:
    assert [name for names in (SHARED, *CODE.values()) for name in names if not (ROOT / name).exists()] == []


def uncovered(stage: str, entries: list[Path]) -> list[str]:
    """Modules of the pipeline that `entries` lead to and that the stage's key does not cover."""
    named = [ROOT / name for name in (*SHARED, *CODE[stage])]
    seen: set[Path] = set()
    waiting = list(entries)
    while waiting:
        if (path := waiting.pop()) not in seen:
            seen.add(path)
            waiting += imported(path)
    inside = [path for path in seen if ROOT in path.parents and not any(one in (path, *path.parents) for one in named)]
    return sorted({path.relative_to(ROOT).as_posix() for path in inside} - NEVER_IN_A_RESULT)


def imported(path: Path) -> Iterator[Path]:
    """The files of kobako that a file imports, wherever in it, but for types alone."""
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        base = path.parents[node.level - 1] if node.level else ROOT.parent
        parts = (node.module or "").split(".") if node.module else []
        if not node.level:
            if parts[:1] != ["kobako"]:
                continue
            parts = parts[1:]
        place = base.joinpath(*parts)
        if place.with_suffix(".py").is_file():
            yield place.with_suffix(".py")
            continue
        for alias in node.names:
            found = (place / f"{alias.name}.py", place / alias.name / "__init__.py", place / "__init__.py")
            yield from [one for one in found if one.is_file()][:1]


def statements(node: ast.AST) -> Iterator[ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
            yield from statements(child)
