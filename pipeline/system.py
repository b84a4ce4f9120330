"""The machine a build runs on: cores, memory, and a name for its timings."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Machine:
    """Cores this process may use, memory it may use (container limits included), and a stable identity."""

    cores: int
    available_bytes: int
    identity: str

    @staticmethod
    def here() -> Machine:
        """Read it off this machine."""
        import psutil

        cores = usable_cores()
        available = psutil.virtual_memory().available
        if (limit := cgroup_limit_bytes()) is not None:
            available = min(available, limit)
        return Machine(cores, available, f"{platform.node()} {platform.machine()} {cores} cores")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cgroup_limit_bytes() -> int | None:
    """The container's memory limit, or None when there is none."""
    try:
        text = CGROUP_LIMIT.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def peak_rss_bytes() -> int:
    """The largest resident memory this process has reached."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
