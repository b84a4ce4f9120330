"""A whole `kobako build` in a memory control group: the kernel kills what passes the limit."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PR_CAPBSET_DROP, CAP_IPC_LOCK = 24, 14  # linux/prctl.h, linux/capability.h
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class NoLimit(Exception):
    """The system does not let us set one."""


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """The `…procs` file of a new control group with a memory limit and no swap. Raises NoLimit."""
    first = (V1 / "memory.limit_in_bytes").exists()
    group = (V1 if first else V2) / f"kobako-growth-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit_bytes))
    except OSError as error:
        raise NoLimit(f"no memory control group can be made here ({error}); root is needed.") from error
    try:
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


@contextmanager
def limited(limit_bytes: int) -> Iterator[None]:
    """Let this process and its children have so much memory within the block. Raises NoLimit."""
    with memory_group(limit_bytes) as procs:
        procs.write_text(str(os.getpid()))
        try:
            yield
        finally:
            (procs.parent.parent / "cgroup.procs").write_text(str(os.getpid()))


def give_up_locking() -> None:
    """Let no process started from here lock memory: apps may not either, and ExecuTorch's loader locks what it may."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK)


def build(arguments: list[str], limit_bytes: int, cache: Path) -> tuple[dict[str, Any], float]:
    """Run `kobako build … --json` under the limit: its report, and seconds on the clock.

    Raises NoLimit, and CalledProcessError when the build failed.
    """
    command = [
        sys.executable,
        "-m",
        "kobako.pipeline.cli.main",
        "build",
        *arguments,
        "--json",
        "--cache-dir",
        str(cache),
    ]
    with memory_group(limit_bytes) as procs:
        began = time.monotonic()
        done = subprocess.run(
            command, stdout=subprocess.PIPE, check=True, preexec_fn=lambda: procs.write_text(str(os.getpid()))
        )
        seconds = time.monotonic() - began
    told: dict[str, Any] = json.loads(done.stdout)
    return told, seconds
