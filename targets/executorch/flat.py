"""Reading FlatBuffers without generated code: a table, its fields by number."""

from __future__ import annotations

import struct
from collections.abc import Iterator


class Table:
    """A FlatBuffers table at a position; fields are numbered as declared, from 0."""

    def __init__(self, buffer: bytes | bytearray, position: int) -> None:
        from flatbuffers.table import Table as Flat

        self.flat = Flat(buffer, position)

    def at(self, field: int) -> int:
        """Absolute position of a field, 0 when absent."""
        offset: int = self.flat.Offset(4 + 2 * field)
        return self.flat.Pos + offset if offset else 0

    def number(self, field: int, layout: str) -> int:
        """A scalar field; 0 when absent."""
        position = self.at(field)
        return int(struct.unpack_from(layout, self.flat.Bytes, position)[0]) if position else 0

    def table(self, field: int) -> Table:
        """A table or union field."""
        position = self.at(field)
        if not position:
            raise ValueError("a table is missing")
        return Table(self.flat.Bytes, self.flat.Indirect(position))

    def string(self, field: int) -> str:
        """A string field; empty when absent."""
        position = self.at(field)
        return bytes(self.flat.String(position)).decode() if position else ""

    def vector(self, field: int) -> tuple[int, int]:
        """Start and length of a vector field."""
        if not self.at(field):
            return 0, 0
        offset = self.flat.Offset(4 + 2 * field)
        return self.flat.Vector(offset), self.flat.VectorLen(offset)

    def tables(self, field: int) -> Iterator[Table]:
        """The tables of a vector field."""
        start, length = self.vector(field)
        for index in range(length):
            yield Table(self.flat.Bytes, self.flat.Indirect(start + 4 * index))

    def numbers(self, field: int) -> tuple[int, ...]:
        """The elements of a vector of uint32."""
        start, length = self.vector(field)
        return struct.unpack_from(f"<{length}I", self.flat.Bytes, start)
