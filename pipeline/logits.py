"""Logits of the proof text on disk: ``[W, T, V]`` float32 in a ``.npy`` file, written and read a few rows at a time.

With a vocabulary of 262,144 the logits of 512 tokens are half a gigabyte, and a proof compares four such arrays. A
memory map would count as resident; reading rows does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .contracts import FloatArray

BATCH = 32
"""Positions compared at once."""


class Rows(Protocol):
    """What gives logits by window and positions: a `LogitsFile`, or an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, where: tuple[int, list[int]], /) -> FloatArray: ...


@dataclass(frozen=True)
class LogitsFile:
    """Reads rows of a ``.npy`` file."""

    path: Path
    shape: tuple[int, ...]
    begin: int

    @classmethod
    def open(cls, path: Path) -> LogitsFile:
        """Read the header. Raises OSError or ValueError."""
        with path.open("rb") as file:
            np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
            if dtype != np.float32 or len(shape) != 3:
                raise ValueError(f"{path.name} holds {dtype} {shape}, not float32 [W, T, V]")
            return cls(path, shape, file.tell())

    def __getitem__(self, where: tuple[int, list[int]]) -> FloatArray:
        window, positions = where
        _, tokens, vocabulary = self.shape
        found = np.empty((len(positions), vocabulary), np.float32)
        with self.path.open("rb") as file:
            for row, position in enumerate(positions):
                if not 0 <= position < tokens:
                    raise IndexError(f"position {position} of {tokens}")
                file.seek(self.begin + 4 * vocabulary * (window * tokens + position))
                found[row] = np.fromfile(file, np.float32, vocabulary)
        return found


def write_logits(path: Path, shape: Sequence[int], rows: Iterator[FloatArray]) -> LogitsFile:
    """Write `rows`, batches ``[N, V]`` in order. Raises ValueError when they are not as many as `shape` says."""
    with path.open("wb") as file:
        header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        begin, written = file.tell(), 0
        for batch in rows:
            file.write(np.ascontiguousarray(batch, np.float32).data)
            written += batch.size
    if written != math.prod(shape):
        raise ValueError(f"{written} numbers were written, {math.prod(shape)} expected")
    return LogitsFile(path, tuple(shape), begin)


def batches(tokens: int) -> Iterator[list[int]]:
    """All positions of a window, a few at a time."""
    for start in range(0, tokens, BATCH):
        yield list(range(start, min(start + BATCH, tokens)))
