"""Where the time of an export goes: CPU seconds and peak memory of each of its phases, by depth."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .shapes import AXES
from .stages import PREFILL_TOKENS, Stages

DEPTHS = (2, 8, 30)
STARTING = "starting, importing"


@dataclass(frozen=True)
class Phase:
    """Between two reports of progress; equal ones one after the other are one."""

    name: str
    cpu_s: float
    peak_bytes: int


def profiles(
    recipe: str, targets: Sequence[str], work: Path, downloads: Path
) -> Iterator[tuple[str, int, list[Phase]]]:
    """(target, layers, phases): every export in a process of its own."""
    for depth in DEPTHS:
        home = work / str(depth)
        quantized, _, _ = Stages.of(AXES["depth"].shape(depth), home, downloads).quantize(recipe)
        (home / "quantized.json").write_text(json.dumps(quantized))
        for target in targets:
            command = [sys.executable, "-m", "growth.profile", target, str(home / "quantized.json")]
            said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            yield target, depth, [Phase(*one) for one in json.loads(said.splitlines()[-1])]
        shutil.rmtree(home)


def measure(target: str, quantized_file: Path) -> list[Phase]:
    """Export in this process."""
    from kobako import targets
    from kobako.pipeline.codec import from_json
    from kobako.pipeline.contracts import ExportOptions, Quantized

    reports = [(STARTING, 0.0, 0)]

    def progress(_part: float, text: str) -> None:
        name = re.sub(r" \d+ of \d+", "s", text)
        if name != reports[-1][0]:
            reports.append((name, *spent()))

    quantized = from_json(json.loads(quantized_file.read_text()), Quantized)
    options = ExportOptions(context_tokens=AXES["depth"].context_tokens(0), prefill_tokens=PREFILL_TOKENS)
    with tempfile.TemporaryDirectory(dir=quantized_file.parent) as out:
        targets.get(target).export(quantized, options, Path(out), progress)
    reports.append(("", *spent()))
    return [
        Phase(name, after - before, peak)
        for (name, before, _), (_, after, peak) in itertools.pairwise(reports)
        if name != "done"
    ]


def spent() -> tuple[float, int]:
    """CPU seconds and peak resident bytes of this process until now. (`getrusage` begins with its parent's peak.)"""
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return time.process_time(), int(told[1]) * 1024 if told else 0


if __name__ == "__main__":
    found = measure(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps([(one.name, one.cpu_s, one.peak_bytes) for one in found]))
