"""``scripts/bench/growth``."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import limited, profile, stages
from .checkpoint import write_checkpoint
from .shapes import AXES, CONTEXT_TOKENS, PUBLISHED

DOWNLOADS = Path(".cache/growth/downloads")
TARGETS = ("executorch", "coreml", "litert")
ALLOWED_PER_BF16, ALLOWED_BYTES = 1.3, 1.5e9


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench/growth", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    curve = what.add_parser("curve", help="CPU time, memory and size along an axis, and their exponents")
    curve.add_argument("axis", choices=sorted(AXES))
    profiled = what.add_parser("profile", help="CPU time and memory of each phase of an export, by depth")
    published = what.add_parser("build", help="a whole build of a published shape under a memory limit (needs root)")
    published.add_argument("shape", choices=sorted(PUBLISHED))
    published.add_argument("--limit", default="16", help="gigabytes of the control group [default: 16]")
    published.add_argument("--context", default="1024", help="tokens of context [default: 1024]")
    single = what.add_parser(
        "stages", help="quantizing, exports and engines of a published shape, without the proof (a limit needs root)"
    )
    single.add_argument("shape", choices=sorted(PUBLISHED))
    single.add_argument("--limit", help="gigabytes of the control group [default: none]")
    made = what.add_parser("checkpoint", help="only write the random checkpoint of a published shape")
    made.add_argument("shape", choices=sorted(PUBLISHED))
    made.add_argument("directory", type=Path)
    for one in (curve, profiled, published, single):
        one.add_argument("--recipe", default="int8", help="[default: int8]")
        one.add_argument("--target", action="append", choices=TARGETS, help="[default: all three]")
        one.add_argument("--json", action="store_true", help="print JSON")
        one.add_argument(
            "--work", type=Path, help="where checkpoints and results lie meanwhile [default: a temporary one]"
        )
    given = parser.parse_args()
    if given.what == "checkpoint":
        print(f"{write_checkpoint(PUBLISHED[given.shape], given.directory, DOWNLOADS):,} parameters")
        return
    if given.work:
        given.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        prints = {"curve": print_curve, "profile": print_profile, "build": print_build, "stages": print_stages}
        try:
            prints[given.what](given, Path(work))
        except limited.NoLimit as error:
            sys.exit(f"growth: {error}")


def print_stages(given: argparse.Namespace, work: Path) -> None:
    """One published shape, stage by stage."""
    limit = limited.limited(int(float(given.limit) * 1e9)) if given.limit else nullcontext()
    shape, found = PUBLISHED[given.shape], []
    limited.give_up_locking()
    with limit:
        targets = tuple(given.target or TARGETS)
        for row in stages.staged(shape, CONTEXT_TOKENS, given.recipe, targets, work, DOWNLOADS, run=True):
            found.append(row)
            print(f"{row[0]}: {row[2]:.0f} CPU s, {row[3] / 1e9:.2f} GB", file=sys.stderr)
    if given.json:
        print(json.dumps(found))
        return
    lines = [
        (name, f"{cpu_s:.0f}", f"{peak / 1e9:.2f} GB", f"{size / 1e9:.2f} GB") for name, _, cpu_s, peak, size in found
    ]
    print(table((f"{given.shape}, {given.recipe}", "CPU s", "peak memory", "file"), lines))
    parameters = found[0][1]
    print(
        f"\n{parameters / 1e9:.2f} billion parameters; 1.3 × bf16 + 1.5 GB would be {allowed(parameters) / 1e9:.2f} GB"
    )


def allowed(parameters: int) -> float:
    """Bytes that a stage may take."""
    return ALLOWED_PER_BF16 * 2 * parameters + ALLOWED_BYTES


def print_profile(given: argparse.Namespace, work: Path) -> None:
    """Depths beside each other, a line for each phase."""
    found: dict[tuple[str, str], dict[int, profile.Phase]] = {}
    for target, depth, phases in profile.profiles(given.recipe, tuple(given.target or TARGETS), work, DOWNLOADS):
        for one in phases:
            found.setdefault((target, one.name), {})[depth] = one
    if given.json:
        print(
            json.dumps([[target, depth, asdict(one)] for (target, _), of in found.items() for depth, one in of.items()])
        )
        return
    lines = [(target, name, *(cell(of.get(depth)) for depth in profile.DEPTHS)) for (target, name), of in found.items()]
    print(table(("target", "phase", *(f"{depth} layers" for depth in profile.DEPTHS)), lines))


def cell(phase: profile.Phase | None) -> str:
    """CPU seconds, and the peak of memory by the phase's end."""
    return "" if phase is None else f"{phase.cpu_s:.1f} s, {phase.peak_bytes / 1e9:.2f} GB"


def print_curve(given: argparse.Namespace, work: Path) -> None:
    """One axis."""
    axis, targets = AXES[given.axis], tuple(given.target or TARGETS)
    found = list(stages.rows(given.axis, given.recipe, targets, work, DOWNLOADS))
    if given.json:
        print(json.dumps([row.json() for row in found]))
        return
    print(table((axis.title, "parameters", "stage", "CPU s", "peak memory", "file"), (row.cells() for row in found)))
    print()
    for stage in ("quantize", *targets):
        print(growth(given.axis, stage, [row for row in found if row.stage == stage]))


def growth(axis: str, stage: str, rows: list[stages.Row]) -> str:
    """The fitted exponents of one stage, and how much dearer thirty layers are than four."""
    values = [math.log(row.value) for row in rows]
    parts = []
    for name, of in (("CPU time", "cpu_s"), ("peak memory", "peak_bytes"), ("file", "bytes_written")):
        parts.append(f"{name} ~ {AXES[axis].title}^{slope(values, [math.log(getattr(row, of)) for row in rows]):.2f}")
    by_value = {row.value: row.cpu_s for row in rows}
    if axis == "depth":
        parts.append(f"30 layers cost {by_value[30] / by_value[4]:.2f} × 4 layers")
    return f"{stage}: {', '.join(parts)}"


def slope(x: list[float], y: list[float]) -> float:
    """Of the least-squares line."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    across = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return across / sum((a - mean_x) ** 2 for a in x)


def print_build(given: argparse.Namespace, work: Path) -> None:
    """One published shape."""
    model, limit = work / given.shape, int(float(given.limit) * 1e9)
    parameters = write_checkpoint(PUBLISHED[given.shape], model, DOWNLOADS)
    arguments = [str(model), "--recipe", given.recipe, "--context", given.context, "--out", str(work / "package")]
    for target in given.target or TARGETS:
        arguments += ["--target", target]
    # random weights hardly prefer one token to another, and so do not meet the demands on quality: what failed is told
    arguments += ["--jobs", "1", "--memory-limit", f"{limit / 1e9}GB", "--allow-failing"]
    try:
        told, seconds = limited.build(arguments, limit, work / "cache")
    except subprocess.CalledProcessError as error:
        sys.exit(f"growth: the build ended with exit status {error.returncode}.")
    finally:
        shutil.rmtree(model)
    if given.json:
        print(json.dumps({"shape": given.shape, "parameters": parameters, "seconds": seconds, "told": told}))
        return
    lines = [
        (stage["stage"], f"{stage['seconds']:.0f}", f"{stage['peak_rss_bytes'] / 1e9:.2f} GB")
        for stage in told["report"]["stages"]
    ]
    print(table((f"{given.shape}, {given.recipe}", "seconds", "peak memory"), lines))
    peak = max(stage["peak_rss_bytes"] for stage in told["report"]["stages"])
    print(
        f"\n{parameters / 1e9:.2f} billion parameters, limit {limit / 1e9:.0f} GB: {seconds / 60:.1f} minutes, at most "
        f"{peak / 1e9:.2f} GB in one process; 1.3 × bf16 + 1.5 GB would be {allowed(parameters) / 1e9:.2f} GB"
    )
    for name, target in told["report"]["targets"].items():
        print(f"{name}: {proof_in_words(target['report']['checks'])}")


def proof_in_words(checks: Sequence[Mapping[str, Any]]) -> str:
    """How many checks of a proof hold, and which do not."""
    failed = [f"{one['part']} {one['name']} {one['value']} ({one['demand']})" for one in checks if not one["passed"]]
    held = f"{len(checks) - len(failed)} of {len(checks)} checks hold"
    return f"{held}; not: {'; '.join(failed)}" if failed else held


main()
