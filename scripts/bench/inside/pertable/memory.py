"""What this process has in memory, from the kernel's own records (Linux)."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def resident_bytes(path: Path) -> int:
    """Of a file, through all mappings of it."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and ":" not in first:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def private_bytes() -> int:
    """Of the process itself, which no other file backs."""
    found = dict(line.split(":")[:2] for line in Path("/proc/self/status").read_text().splitlines())
    return int(found["RssAnon"].split()[0]) * 1024


def peak_bytes() -> int:
    """The largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def major_faults() -> int:
    """Pages that had to come from the disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def forget(path: Path) -> None:
    """Drop a file's clean pages from the kernel's cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
