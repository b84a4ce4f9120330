"""Work on large matrices a few rows at a time, on all cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .system import usable_cores

VALUES_AT_ONCE = 1 << 18
"""Small enough, in float32, for the cache of one core."""


def row_slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Parts of a matrix of few values each, so that work on an embedding table needs no second copy of it."""
    outputs, inputs = shape
    step = max(1, VALUES_AT_ONCE // max(1, inputs))
    return (slice(start, start + step) for start in range(0, outputs, step))


def over_rows(shape: tuple[int, ...], work: Callable[[slice], None]) -> None:
    """Call `work` with each of the row slices; several at once, since NumPy's loops and reads release Python's lock."""
    parts = list(row_slices(shape))
    if len(parts) < 2 * cores():  # a thread would cost more than it saves
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(work, parts):
            pass


def cores() -> int:
    """What OMP_NUM_THREADS grants, which every numeric library goes by; without it, all that may be used."""
    granted = os.environ.get("OMP_NUM_THREADS", "")
    return int(granted) if granted.isdigit() and int(granted) > 0 else usable_cores()
