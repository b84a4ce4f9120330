"""Run one operation in a process of its own, watch its memory, pass its progress on.

Vendors' native libraries never meet, memory is bounded and returned, a crash is an error value and not the end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from .contracts import Progress, no_progress
from .errors import KobakoError, NotEnoughMemory, TargetCrashed, by_name

POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a process may use: resident memory, threads of its numeric libraries, and time on the clock."""

    memory_bytes: int
    threads: int
    time_s: float = 6 * 3600.0


@dataclass(frozen=True)
class Outcome:
    """What an operation returned, and the largest resident memory it reached."""

    value: Any
    peak_rss_bytes: int


class _Guard(threading.Thread):
    """Kills the process when its resident memory or its time passes the limit; remembers the peak."""

    def __init__(self, process: subprocess.Popen[bytes], limits: Limits) -> None:
        super().__init__(daemon=True)
        self._process, self._limits = process, limits
        self._deadline = time.monotonic() + limits.time_s
        self.peak_bytes = 0
        self.killed = False
        self.late = False
        self._stop_event = threading.Event()

    def run(self) -> None:
        while not self._stop_event.wait(POLL_S) and self._process.poll() is None:
            self.peak_bytes = max(self.peak_bytes, _tree_rss_bytes(self._process.pid))
            self.killed = self.peak_bytes > self._limits.memory_bytes
            self.late = time.monotonic() > self._deadline
            if self.killed or self.late:
                kill_group(self._process)
                return

    def finish(self) -> None:
        self._stop_event.set()
        self.join()


class Workers:
    """Starts operations, one process each, under common limits; can stop them all. Safe to use from several threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """Kill what runs and refuse to start more: no orphan may go on burning the machine."""
        self._stopped = True
        for process in list(self._running):
            kill_group(process)

    def run(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        *,
        log: Path,
        progress: Progress = no_progress,
        threads: int | None = None,
    ) -> Outcome:
        """Run `operation` of `kobako.pipeline.worker` in a new process and wait for it.

        `threads` overrides the common limit, for an operation that has the machine to itself.
        Raises the KobakoError that the operation raised, NotEnoughMemory when it passed its limit, and TargetCrashed
        when it died or raised anything else; what the process printed is in `log`.
        """
        if self._stopped:
            raise TargetCrashed(f"{operation} was not started: the build is stopping.")
        with TemporaryDirectory(prefix="kobako-", ignore_cleanup_errors=True) as scratch:
            process = _start(operation, arguments, log, threads or self._limits.threads, scratch)
            return self._followed(operation, process, log, progress)

    def _followed(self, operation: str, process: subprocess.Popen[bytes], log: Path, progress: Progress) -> Outcome:
        self._running.add(process)
        if self._stopped:  # meanwhile, by another thread, which has not seen this process
            kill_group(process)
        guard = _Guard(process, self._limits)
        guard.start()
        try:
            assert process.stdout is not None
            final = _follow(process.stdout, progress)
            process.wait()
        except BaseException:
            kill_group(process)
            process.wait()
            raise
        finally:
            guard.finish()
            self._running.discard(process)
        return self._outcome(operation, process, guard, final, log)

    def _outcome(
        self, operation: str, process: subprocess.Popen[bytes], guard: _Guard, final: dict[str, Any], log: Path
    ) -> Outcome:
        if guard.killed:
            raise NotEnoughMemory(
                f"{operation} passed its memory limit: "
                f"{guard.peak_bytes / 1e9:.2f} of {self._limits.memory_bytes / 1e9:.2f} GB.",
                "Give it more with --memory-limit, or run it on a larger machine; finished stages are kept.",
            )
        if guard.late:
            raise TargetCrashed(f"{operation} did not finish within {self._limits.time_s:,.0f} s.", f"Details: {log}")
        if self._stopped and process.returncode:
            raise TargetCrashed(f"{operation} was stopped together with the build.")
        if "error" in final:
            raise _rebuilt(operation, final["error"], log)
        if "value" not in final or process.returncode:
            raise TargetCrashed(
                f"{operation} died ({_cause(process.returncode)}).", f"Last lines of {log}:\n{tail(log)}"
            )
        return Outcome(final["value"], max(guard.peak_bytes, int(final["peak_rss_bytes"])))


SECRET = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|KEY|PAT|AUTH)(_|$)", re.IGNORECASE)
"""Names of environment variables that no operation needs and no file that it reads should meet."""


def _start(
    operation: str, arguments: Mapping[str, Any], log: Path, threads: int, scratch: str
) -> subprocess.Popen[bytes]:
    """The worker, its job told; vendors leave files behind in its temporary directory `scratch`."""
    environment = {name: value for name, value in os.environ.items() if not SECRET.search(name)} | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",  # vendors go through sets: the same inputs shall give the same bytes
        "TMPDIR": scratch,
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kobako.pipeline.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed, env=environment, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(json.dumps({"operation": operation, "arguments": arguments, "threads": threads}).encode())
    return process


def _follow(stream: IO[bytes], progress: Progress) -> dict[str, Any]:
    """Read the worker's event lines until it closes the stream; the last value or error event."""
    final: dict[str, Any] = {}
    for line in stream:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if "progress" in event:
            progress(event["progress"], event["text"])
        else:
            final = event
    return final


def _rebuilt(operation: str, error: Mapping[str, str], log: Path) -> KobakoError:
    if error["kind"] == "unexpected":
        return TargetCrashed(f"{operation} failed unexpectedly: {error['what']}", f"Details: {log}")
    return by_name(error["kind"])(error["what"], error["next_step"])


def _cause(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        name = signal.Signals(-returncode).name
        return f"{name}, perhaps the kernel's out-of-memory killer" if name == "SIGKILL" else name
    return f"exit status {returncode}"


def _tree_rss_bytes(pid: int) -> int:
    import psutil

    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])
    except psutil.Error:
        return 0


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and everything it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
