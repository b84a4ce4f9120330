"""Worker processes: values, errors, crashes, memory limits and noise all come back as what they are."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from kobako.pipeline import process
from kobako.pipeline.errors import BadArtifact, NotEnoughMemory, NotFound, TargetCrashed
from kobako.pipeline.process import Limits, Workers

GB = 10**9


@pytest.fixture
def workers() -> Workers:
    return Workers(Limits(memory_bytes=GB, threads=1))


def fake_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Start `body` instead of the worker module: the protocol is what is tested, with real processes."""
    script = tmp_path / "worker.py"
    script.write_text("import json, os, sys, time, signal\njob = json.loads(sys.stdin.read())\n" + body)
    real = subprocess.Popen

    def popen(arguments: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([sys.executable, str(script)], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(process.subprocess, "Popen", popen)


def test_value_progress_and_noise(workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_worker(
        monkeypatch,
        tmp_path,
        'print("vendor noise"); print(json.dumps({"progress": 0.5, "text": "half"}))\n'
        'print(json.dumps({"value": job["arguments"], "peak_rss_bytes": 5}))',
    )
    seen: list[tuple[float, str]] = []
    outcome = workers.run("op", {"x": 1}, log=tmp_path / "log", progress=lambda f, text: seen.append((f, text)))
    assert outcome.value == {"x": 1}
    assert seen == [(0.5, "half")]


def test_what_a_worker_leaves_in_its_temporary_directory_is_removed(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_worker(
        monkeypatch, tmp_path,
        'import tempfile; left = tempfile.mkdtemp(); print(json.dumps({"value": left, "peak_rss_bytes": 5}))',
    )  # fmt: skip
    left = Path(workers.run("op", {}, log=tmp_path / "log").value)
    assert left.parent.name.startswith("kobako-")
    assert not left.parent.exists()


def test_a_crash_names_the_signal_and_shows_the_log(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_worker(
        monkeypatch, tmp_path, 'print("last words", file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)'
    )
    with pytest.raises(TargetCrashed, match=r"SIGSEGV[\s\S]*last words"):
        workers.run("op", {}, log=tmp_path / "log")


def test_memory_limit(workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_worker(monkeypatch, tmp_path, 'hog = b"x" * (1500 * 10**6); time.sleep(20)')
    started = time.monotonic()
    with pytest.raises(NotEnoughMemory, match=r"1\.\d+ of 1\.00 GB"):
        workers.run("op", {}, log=tmp_path / "log")
    assert time.monotonic() - started < 15


def test_stop_kills_what_runs(workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_worker(
        monkeypatch,
        tmp_path,
        'print(json.dumps({"progress": 0, "text": str(os.getpid())}), flush=True); time.sleep(60)',
    )
    pids: list[int] = []

    def stop(_fraction: float, text: str) -> None:
        pids.append(int(text))
        workers.stop()

    with pytest.raises(TargetCrashed):
        workers.run("op", {}, log=tmp_path / "log", progress=stop)
    assert not psutil.pid_exists(pids[0])
    with pytest.raises(TargetCrashed, match="stopping"):
        workers.run("op", {}, log=tmp_path / "log")


def test_stop_kills_what_was_just_starting(workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stopped by another thread after the look at it, and before the process was known."""
    fake_worker(monkeypatch, tmp_path, "time.sleep(60)")
    real = process._start
    started: list[Any] = []

    def start(operation: str, arguments: Any, log: Path, threads: int, scratch: str) -> subprocess.Popen[bytes]:
        started.append(real(operation, arguments, log, threads, scratch))
        workers.stop()
        return started[0]

    monkeypatch.setattr(process, "_start", start)
    began = time.monotonic()
    with pytest.raises(TargetCrashed):
        workers.run("op", {}, log=tmp_path / "log")
    assert time.monotonic() - began < 30
    assert started[0].returncode == -signal.SIGKILL


def test_the_real_worker_returns_errors_as_they_are(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no target 'nosuch'"):
        workers.run("inspect", {"target": "nosuch", "path": "x"}, log=tmp_path / "log")


def test_the_real_worker_reports_bugs_with_the_log(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(TargetCrashed, match="KeyError"):
        workers.run("inspect", {}, log=tmp_path / "log")
    assert "Traceback" in (tmp_path / "log").read_text()


def test_the_worker_dies_with_its_parent(tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import os, threading, time\\n"
        "from kobako.pipeline.worker import follow_parent_into_death as f\\n"
        "threading.Thread(target=f, args=(os.getppid(),), daemon=True).start()\\n"
        'print("watching", flush=True); time.sleep(60)\'], start_new_session=True)\n'
        "print(p.pid, flush=True)\nimport time; time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert process.stdout.readline() == b"watching\n"
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not psutil.pid_exists(child)


def test_errors_survive_the_trip() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BadArtifact("what", "next")))
    assert (error.what, error.next_step) == ("what", "next")
