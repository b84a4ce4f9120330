"""All faults in order, and the table of what came of them."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.faults import crowds, disks, flips, killing, servers
from tests.faults.ground import Ground, Row

HEAD = "| fault | tried | came through | refused | went wrong | seconds | |\n|---|---:|---:|---:|---:|---:|---|"


Scenario = Callable[[], "Row | list[Row]"]


def scenarios(ground: Ground, scale: int) -> dict[str, Scenario]:
    """By name, in order. `scale`: percent of the full numbers."""
    many, points, regions = (max(least, full * scale // 100) for least, full in ((1, 100), (1, 20), (2, 64)))
    found: dict[str, Scenario] = {
        "servers": lambda: servers.pulls(ground),
        "flips-package": lambda: flips.packages(ground, regions),
        "flips-source": lambda: flips.sources(ground, regions),
        "kill-pull": lambda: killing.pulls(ground, many),
        "kill-publish": lambda: killing.publishes(ground, many),
        "disk-roads": lambda: disks.roads(ground, points),
        "read-only": lambda: disks.read_only(ground),
        "case": lambda: disks.case_insensitive(ground),
        "case-build": lambda: disks.case_insensitive_build(ground),
        "clocks": lambda: disks.clocks(ground),
    }
    for count in (2, 8):
        found[f"pulls-{count}"] = partial(crowds.pulls, ground, count)
        found[f"publishes-{count}"] = partial(crowds.publishes, ground, count)
        found[f"builds-to-one-place-{count}"] = partial(crowds.builds_to_one_place, ground, count)
        found[f"builds-{count}"] = partial(crowds.builds, ground, count)
    found["disk-build"] = lambda: disks.builds(ground, points)
    found["kill-build"] = lambda: killing.builds(ground, many)
    return found


def line(row: Row, seconds: float) -> str:
    note = "; ".join([row.note, *row.wrong[:3]]).strip("; ").replace("|", "/").replace("\n", " ")
    return f"| {row.fault} | {row.tried} | {row.survived} | {row.refused} | {len(row.wrong)} | {seconds:.0f} | {note} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--scale", type=int, default=100, metavar="PERCENT", help="of the full numbers [100]")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments [0]")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these scenarios instead of all")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    rows: list[Row] = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="kobako-faults-") as home:
        ground = Ground(Path(home), options.seed)
        known = scenarios(ground, options.scale)
        if unknown := set(options.only or ()) - set(known):
            parser.error(f"no scenario {sorted(unknown)[0]}; there are: {', '.join(known)}")
        for name in options.only or known:
            started = time.monotonic()
            try:
                made = known[name]()
            except PermissionError as error:
                made = Row(name, note=f"skipped: {error}")
            found = made if isinstance(made, list) else [made]
            each = (time.monotonic() - started) / max(len(found), 1)
            for row in found:
                rows.append(row)
                print(line(row, each), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    wrong = sum(len(row.wrong) for row in rows)
    print(f"\n{sum(row.tried for row in rows)} faults, {wrong} went wrong.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
