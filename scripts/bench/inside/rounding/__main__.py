"""``scripts/bench/rounding``."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from kobako.pipeline.contracts import RECIPES

from . import rivals, times
from .sources import SOURCES


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench/rounding", description=__doc__)
    parser.add_argument(
        "what", choices=("rivals", "times"), help="ways of rounding side by side, or seconds by size of the model"
    )
    parser.add_argument("--source", action="append", choices=sorted(SOURCES), help="of rivals; default: all")
    parser.add_argument("--high", action="store_true", help="with --effort high: many minutes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = list(compared(Path(work), given) if given.what == "rivals" else timed(Path(work), given))
    if given.json:
        print(json.dumps([asdict(row) for row in found]))
        return
    print(table(rivals.HEAD if given.what == "rivals" else times.HEAD, (row.cells() for row in found)))
    if given.what == "times":
        print(f"\nseconds ~ parameters^{times.exponent(found):.2f}")


def compared(work: Path, given: argparse.Namespace) -> Iterator[rivals.Row]:
    """Every way on every source."""
    for name in given.source or sorted(SOURCES):
        yield from rivals.rows(name, SOURCES[name](work), work, given.high)


def timed(work: Path, given: argparse.Namespace) -> Iterator[times.Row]:
    """The recipe int4 on every size."""
    recipe = replace(RECIPES["int4"], rounding="tuned") if given.high else RECIPES["int4"]
    return times.rows(recipe, work, os.cpu_count() or 1)


main()
