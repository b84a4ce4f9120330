"""``scripts/bench/embeddings``."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from kobako.pipeline.embeddings import TableLayout

from . import engines, rows

SHAPES = {
    "e2b": {"rows": 262_144, "layers": 35, "width": 256, "hidden": 512},
    "small": {"rows": 65_536, "layers": 5, "width": 256, "hidden": 256},
}
"""`e2b`: the table of Gemma 4 E2B as published; the layers around it are made narrower. `small`: for a quick look."""


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench/embeddings", description=__doc__)
    parser.add_argument("what", choices=("rows", "engines"), help="the file alone, or each target's runtime")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4, help="of the table's codes")
    parser.add_argument("--target", action="append", choices=sorted(engines.FILES), help="for engines; default: all")
    parser.add_argument("--work", type=Path, help="where the files go [default: the temporary directory]")
    given = parser.parse_args()
    shape = SHAPES[given.shape]
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        if given.what == "rows":
            layout = TableLayout(
                model="random", parameter="table", rows=shape["rows"], layers=shape["layers"], width=shape["width"],
                bits=given.bits, multiplier=16.0,
            )  # fmt: skip
            found = rows.measure(Path(work), layout)
        else:
            recipe = "int4-small" if given.bits == 4 else "int8"
            found = engines.measure(Path(work), shape, recipe, given.target or sorted(engines.FILES))
    print(json.dumps({"shape": given.shape, "bits": given.bits, **found}, indent=1))


main()
