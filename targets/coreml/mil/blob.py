"""Core ML's weight file, blob format version 2: a header, then 64-byte entries each followed by its data.

Entry: sentinel, dtype, size in bytes, offset of the data, unused bits at its end. All little-endian; data is aligned
to 64 bytes. Sub-byte values are packed low bits first.
"""

from __future__ import annotations

import os
import struct
import weakref
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kobako.pipeline.errors import BadArtifact

ENTRY = struct.Struct("<IIQQQ")
HEADER = struct.Struct("<II")
SENTINEL = 0xDEADBEEF
VERSION = 2

BYTE_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float16), 2: np.dtype(np.float32), 3: np.dtype(np.uint8), 4: np.dtype(np.int8),
    6: np.dtype(np.int16), 7: np.dtype(np.uint16), 14: np.dtype(np.int32), 15: np.dtype(np.uint32),
}  # fmt: skip
PACKED_TYPES = {8: ("int4", 4), 9: ("uint1", 1), 10: ("uint2", 2), 11: ("uint4", 4), 12: ("uint3", 3), 13: ("uint6", 6)}
CHUNK_BYTES = 1 << 22
"""Read at once."""
TYPE_NAMES = {code: dtype.name for code, dtype in BYTE_TYPES.items()} | {c: n for c, (n, _) in PACKED_TYPES.items()}


@dataclass(frozen=True)
class BlobEntry:
    """Where one tensor's bytes lie: `dtype` by MIL's name, `size` and `offset` in bytes."""

    dtype: str
    code: int
    size: int
    offset: int


class BlobFile:
    """A weight file, read piece by piece. Every offset is checked against the file before it is used.

    It is not mapped: the pages of a map count as this process's memory for as long as the map lives.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self.size_bytes = os.fstat(self._file).st_size
            head = os.pread(self._file, HEADER.size, 0)
        except OSError as error:
            raise BadArtifact(
                f"the weight file {path.name} cannot be read: {error}.", "Export the model again."
            ) from error
        self.path = path
        version = HEADER.unpack(head)[1] if self.size_bytes >= 64 else None
        if version != VERSION:
            raise BadArtifact(
                f"{path.name} is not a Core ML weight file of version 2 (found {version}).", "Export again."
            )

    def entry(self, offset: int) -> BlobEntry:
        """The entry whose metadata lies at `offset`. Raises BadArtifact."""
        if offset < 0 or offset + 64 > self.size_bytes:
            raise self._damaged(f"an entry at byte {offset} lies outside the {self.size_bytes} bytes")
        sentinel, code, size, start, _ = ENTRY.unpack(self._bytes(offset, ENTRY.size))
        if sentinel != SENTINEL or code not in TYPE_NAMES:
            raise self._damaged(f"no tensor begins at byte {offset} (marker {sentinel:#x}, type {code})")
        if start + size > self.size_bytes:
            raise self._damaged(f"the tensor at byte {start} needs {size} bytes, the file has {self.size_bytes}")
        return BlobEntry(TYPE_NAMES[code], code, size, start)

    def read(self, offset: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The tensor described at `offset`, packed values as (u)int8. Raises BadArtifact."""
        return self.part(offset, shape, 0, prod(shape)).reshape(shape)

    def part(self, offset: int, shape: tuple[int, ...], begin: int, end: int) -> npt.NDArray[Any]:
        """The values from `begin` to `end` of the flattened tensor of `shape` described at `offset`.

        Packed values come as (u)int8; the copies made on the way are small. Raises BadArtifact.
        """
        entry = self.entry(offset)
        bits = PACKED_TYPES[entry.code][1] if entry.code in PACKED_TYPES else BYTE_TYPES[entry.code].itemsize * 8
        if entry.size != (prod(shape) * bits + 7) // 8:
            raise self._damaged(
                f"the {entry.dtype} tensor at byte {offset} has {entry.size} bytes, which do not make {shape}"
            )
        signed = entry.dtype.startswith("int")
        dtype = BYTE_TYPES.get(entry.code, np.dtype(np.int8 if signed else np.uint8))
        values = np.empty(end - begin, dtype)
        if entry.code not in PACKED_TYPES:
            self._fill(values.view(np.uint8).data, entry.offset + begin * dtype.itemsize)
            return values
        step = CHUNK_BYTES // 8 * 8  # eight values of any width end on a byte
        for first in range(begin // 8 * 8, end, step):
            last = min(first + step, end)
            packed = np.empty((last - first) * bits // 8 + ((last - first) * bits % 8 > 0), np.uint8)
            self._fill(packed.data, entry.offset + first * bits // 8)
            piece = unpack(packed, bits, last - first, signed=signed)[max(begin - first, 0) :]
            values[max(first, begin) - begin : last - begin] = piece
        return values

    def _fill(self, buffer: memoryview, offset: int) -> None:
        """Read as many bytes as `buffer` holds; one call gives at most 2 GB."""
        done = 0
        while done < len(buffer):
            got = os.preadv(self._file, [buffer[done : done + (1 << 30)]], offset + done)
            if got <= 0:
                raise self._damaged(f"it ends at byte {offset + done}")
            done += got

    def _bytes(self, offset: int, count: int) -> bytes:
        buffer = bytearray(count)
        self._fill(memoryview(buffer), offset)
        return bytes(buffer)

    def _damaged(self, what: str) -> BadArtifact:
        return BadArtifact(
            f"{self.path.name} is damaged: {what}.", "Export the model again, or fetch the package again."
        )


def unpack(packed: npt.NDArray[np.uint8], bits: int, count: int, *, signed: bool) -> npt.NDArray[Any]:
    """Values of `bits` bits, low bits first, as int8 (signed) or uint8 ``[count]``."""
    if bits == 4:
        values = np.empty(packed.size * 2, np.uint8)
        values[0::2], values[1::2] = packed & 15, packed >> 4
        values = values[:count]
    else:
        stream = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
        values = (stream << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    if signed:
        return ((values ^ (1 << (bits - 1))).astype(np.int8) - (1 << (bits - 1))).astype(np.int8)
    return values
