"""Bytes of a file read a megabyte at a time: nothing of it is mapped, so nothing of it stays in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

PIECE_BYTES = 1 << 20


def file_pieces(path: Path, begin: int, size_bytes: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Bytes of a file from `begin` on, in order; a piece is valid until the next one is asked for."""
    room = np.empty(min(PIECE_BYTES, size_bytes), np.uint8)
    with path.open("rb") as file:
        file.seek(begin)
        while size_bytes:
            piece = room[: min(len(room), size_bytes)]
            if file.readinto(piece.data) < len(piece):
                raise EOFError(f"{path} is cut off: {size_bytes} bytes are missing")
            size_bytes -= len(piece)
            yield piece
