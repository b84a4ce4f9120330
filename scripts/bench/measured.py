"""Runs a command as ``/usr/bin/time -v`` would: wall seconds and peak resident memory, its children included."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

POLL_S = 0.5


class StepFailed(Exception):
    """A command of a step ended badly; the message holds the end of its log."""


@dataclass(frozen=True)
class Measured:
    """What a command cost.

    Attributes:
        peak_rss_bytes: the largest of any single process, from the kernel's own record (``ru_maxrss``).
        peak_sum_rss_bytes: of all its processes together, sampled twice a second; shared pages count once per process.
        others_cpu_s: what everything else on the machine computed meanwhile; large when the machine was not quiet.
        output: what it printed on standard output.
    """

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    peak_sum_rss_bytes: int
    others_cpu_s: float
    output: str

    def figures(self) -> dict[str, Any]:
        """Everything but the output."""
        return {name: value for name, value in asdict(self).items() if name != "output"}


class _Sampler(threading.Thread):
    """Sums the resident memory of a process and its descendants until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._done = pid, threading.Event()
        self.largest_bytes = 0

    def run(self) -> None:
        while not self._done.wait(POLL_S):
            self.largest_bytes = max(self.largest_bytes, tree_rss_bytes(self._pid))

    def finish(self) -> None:
        self._done.set()
        self.join()


def tree_rss_bytes(pid: int) -> int:
    """Resident bytes of a process and all its descendants; 0 when it has gone."""
    import psutil

    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def machine_cpu_s() -> float:
    """Seconds all cores together have been busy since the machine started."""
    import psutil

    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + getattr(times, "irq", 0) + getattr(times, "softirq", 0))


def measured(command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end; what it prints to standard error goes to `log`.

    This process stays small on purpose: Linux counts the memory of the process that forks into ``ru_maxrss`` of the
    child. Raises StepFailed when the command ends with anything but 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    output = log.with_suffix(".out")
    busy_before, started = machine_cpu_s(), time.monotonic()
    with log.open("wb") as errors, output.open("wb") as printed:
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=printed, stderr=errors,
            env=os.environ | dict(environment or {}),
        )  # fmt: skip
        sampler = _Sampler(process.pid)
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            sampler.finish()
    wall_s, cpu_s = time.monotonic() - started, usage.ru_utime + usage.ru_stime
    others_cpu_s = max(0.0, machine_cpu_s() - busy_before - cpu_s)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = output.read_text(errors="replace")
    if process.returncode != 0:
        raise StepFailed(f"{Path(command[0]).name} ended with {process.returncode}; {log}:\n{tail(log)}\n{text[-500:]}")
    return Measured(
        wall_s=wall_s, cpu_s=cpu_s, peak_rss_bytes=usage.ru_maxrss * 1024,
        peak_sum_rss_bytes=sampler.largest_bytes, others_cpu_s=others_cpu_s, output=text,
    )  # fmt: skip


def answer(command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a program of ``inside/`` and return the JSON object it prints last."""
    return parsed(measured(command, log, environment).output, log)


def parsed(output: str, log: Path) -> dict[str, Any]:
    """The last JSON object in what a program of ``inside/`` printed: engines print words of their own before it."""
    found = [line for line in output.splitlines() if line.startswith("{")]
    try:
        value: dict[str, Any] = json.loads(found[-1])
    except (IndexError, ValueError) as error:
        raise StepFailed(f"no JSON object was printed; see {log}") from error
    return value


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
