"""A safetensors file read a megabyte at a time: nothing of it is mapped, so nothing of it stays in memory.

For whoever writes weights from one file into another. Whoever computes with them takes `kobako.pipeline.weights`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, KeysView, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PIECE_BYTES = 1 << 20
DTYPES: Mapping[str, type[np.generic]] = {"I8": np.int8, "F16": np.float16, "F32": np.float32}
"""What a `weights.safetensors` holds."""


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


class TensorFile:
    """The tensors of a safetensors file, by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            told: dict[str, Any] = json.loads(file.read(length))
        self._begin = 8 + length
        self.metadata: Mapping[str, str] = told.pop("__metadata__", {})
        self._entries = told

    @property
    def names(self) -> KeysView[str]:
        """In the file's own order."""
        return self._entries.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entries[name]["shape"])

    def dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(DTYPES[self._entries[name]["dtype"]])

    def pieces(self, name: str) -> Iterator[npt.NDArray[Any]]:
        """The values in row-major order, without their shape; a piece is valid until the next one is asked for."""
        begin, end = self._entries[name]["data_offsets"]
        for piece in file_pieces(self._path, self._begin + begin, end - begin):
            yield piece.view(self.dtype(name))

    def read(self, name: str) -> npt.NDArray[Any]:
        """The whole tensor."""
        values = np.empty(math.prod(self.shape(name)), self.dtype(name))
        at = 0
        for piece in self.pieces(name):
            values[at : at + len(piece)] = piece
            at += len(piece)
        return values.reshape(self.shape(name))
