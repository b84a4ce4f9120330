"""Safetensors files written and read a tensor at a time: nothing is mapped, and nothing is held.

Pages of a mapped file count as resident until the map is closed: a model that was read once through a map takes its
whole file's size beside whatever was made of it. Read calls leave nothing behind.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .pieces import file_pieces
from .rows import over_rows

Array = npt.NDArray[Any]
DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"), "U32": np.dtype("<u4"), "U16": np.dtype("<u2"), "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}  # fmt: skip
"""NumPy has no bfloat16: its bits are what is read."""
WRITTEN = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int8): "I8"}
"""What is written, in the order in which the safetensors library places it: wide numbers first, each aligned."""
BYTES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in its file, and as what."""

    kind: str
    shape: tuple[int, ...]
    offset: int

    @property
    def row_values(self) -> int:
        """Values of one row: of one step along the first axis."""
        return math.prod(self.shape[1:])


class TensorFile:
    """The tensors of one safetensors file; each access reads the bytes that it asks for."""

    def __init__(self, path: Path) -> None:
        """Raises SafetensorError for a file whose header contradicts itself or its size, and OSError."""
        from safetensors import safe_open

        self.path = path
        with safe_open(path, framework="numpy"):  # the library checks the header against the file
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
        self.metadata: Mapping[str, str] = header.pop("__metadata__", None) or {}
        self._stored = {
            name: Stored(told["dtype"], tuple(told["shape"]), 8 + length + told["data_offsets"][0])
            for name, told in header.items()
        }

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def names(self) -> list[str]:
        """The tensors' names."""
        return list(self._stored)

    def kind(self, name: str) -> str:
        """What a tensor is stored as, such as ``BF16``."""
        return self._stored[name].kind

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._stored[name].shape

    def read(self, name: str) -> Array:
        """A whole tensor as it is stored; bfloat16 as its bits."""
        stored = self._stored[name]
        return self._values(stored, 0, math.prod(stored.shape)).reshape(stored.shape)

    def pieces(self, name: str) -> Iterator[Array]:
        """The values in row-major order, without their shape; a piece is valid until the next one is asked for."""
        stored = self._stored[name]
        kind = DTYPES[stored.kind]
        for piece in file_pieces(self.path, stored.offset, math.prod(stored.shape) * kind.itemsize):
            yield piece.view(kind)

    def rows(self, name: str, begin: int, end: int) -> Array:
        """Rows `begin` to `end` of a tensor as they are stored; a scalar is a row of its own."""
        stored = self._stored[name]
        if not stored.shape:
            return self.read(name)
        end = min(end, stored.shape[0])
        values = self._values(stored, begin * stored.row_values, max(0, end - begin) * stored.row_values)
        return values.reshape(-1, *stored.shape[1:])

    def floats(self, name: str, begin: int = 0, end: int | None = None) -> npt.NDArray[np.float32]:
        """Rows `begin` to `end` of a tensor of floats, or all of it, in float32; no second copy of it is made."""
        stored = self._stored[name]
        if not stored.shape:
            found = np.empty(1, np.float32)
            _widen(self.read(name).reshape(1), stored.kind, found)
            return found.reshape(())
        end = stored.shape[0] if end is None else min(end, stored.shape[0])
        if stored.kind == "F32":
            return self.rows(name, begin, end)
        found = np.empty((max(0, end - begin), *stored.shape[1:]), np.float32)

        def fill(rows: slice) -> None:
            part = found[rows]
            _widen(self.rows(name, begin + rows.start, begin + rows.start + len(part)), stored.kind, part)

        over_rows((len(found), stored.row_values), fill)
        return found

    def _values(self, stored: Stored, first: int, count: int) -> Array:
        kind = DTYPES[stored.kind]
        found: Array = np.fromfile(self.path, kind, count, offset=stored.offset + first * kind.itemsize)
        if len(found) != count:
            raise OSError(f"{self.path} became shorter while it was read")
        return found


def _widen(values: Array, kind: str, out: npt.NDArray[np.float32]) -> None:
    if kind == "BF16":  # the upper half of a float32
        np.left_shift(values, np.uint32(16), out=out.view(np.uint32), dtype=np.uint32)
    else:
        out[...] = values


def write_tensors(path: Path, tensors: Iterable[tuple[str, Array]], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file of tensors that come one by one; `metadata` is read after the last of them.

    Their bytes wait in a second file beside it until all shapes, which stand in front, are known. The result is what
    the safetensors library writes, with metadata in order of their names.
    """
    waiting = path.with_name(path.name + ".part")
    placed: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
    try:
        with waiting.open("wb") as file:
            for name, tensor in tensors:
                begin = file.tell()
                file.write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
                placed[name] = (WRITTEN[tensor.dtype], tensor.shape, begin, file.tell() - begin)
        kinds = list(WRITTEN.values())
        order = sorted(placed, key=lambda name: (kinds.index(placed[name][0]), name))
        with path.open("wb") as file, waiting.open("rb") as source:
            file.write(_header(((name, *placed[name]) for name in order), metadata))
            for name in order:
                _, _, begin, size = placed[name]
                _copied(source, begin, size, file)
    finally:
        waiting.unlink(missing_ok=True)


def _header(placed: Iterable[tuple[str, str, tuple[int, ...], int, int]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, kind, shape, _, size in placed:
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copied(source: BinaryIO, begin: int, size: int, out: BinaryIO) -> None:
    source.seek(begin)
    for start in range(0, size, BYTES_AT_ONCE):
        out.write(source.read(min(BYTES_AT_ONCE, size - start)))
