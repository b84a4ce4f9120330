"""One copy of a tied table: the delegate's data is made to lie where the program's constant already lies.

ExecuTorch keeps constants of host operators (the embedding) and named data of delegates (the head) in segments of
their own. Segments are extents of the file, and nothing says that two may not name the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from .flat import Table
from .pte import HEADER_AT, Extent, open_pte

SEGMENTS_FIELD = 4  # of table Program
BYTES_AT_ONCE = 1 << 22


def share_segment(path: Path, key: str) -> int:
    """Drop the named data `key` when the constant segment holds the same bytes; bytes saved, 0 when it does not."""
    with open_pte(path) as pte:
        if key not in pte.named or pte.program.constant_segment is None:
            return 0
        extent = pte.named[key]
        constants = pte.segments[pte.program.constant_segment.segment_index]
        offsets = [int(offset) for offset in pte.program.constant_segment.offsets]
        base = struct.unpack_from("<Q", pte.data, HEADER_AT + 16)[0]
        later = [item.start for item in pte.segments if item.start > extent.start]
        end = min(later, default=len(pte.data))
    offset = find(path, constants, offsets, extent)
    if offset is None:
        return 0
    patch(path, extent, Extent(constants.start + offset, extent.size), end - extent.start, base)
    return end - extent.start


def find(path: Path, constants: Extent, offsets: Sequence[int], wanted: Extent) -> int | None:
    """Which of the offsets inside the constant segment has the bytes of an extent.

    The file is read and not mapped, for what is compared of a map stays in memory.
    """
    with path.open("rb") as one, path.open("rb") as other:
        for offset in offsets:
            one.seek(constants.start + offset)
            other.seek(wanted.start)
            if offset + wanted.size <= constants.size and same(one, other, wanted.size):
                return offset
    return None


def same(one: IO[bytes], other: IO[bytes], size: int) -> bool:
    """Whether the next bytes of two files are the same."""
    for begin in range(0, size, BYTES_AT_ONCE):
        count = min(BYTES_AT_ONCE, size - begin)
        if one.read(count) != other.read(count):
            return False
    return True


def patch(path: Path, old: Extent, new: Extent, cut: int, base: int) -> None:
    """Move what follows the dropped bytes down over them, and rewrite extents and header to match."""
    with path.open("r+b") as file:
        head = bytearray(file.read(base))
        program = Table(head, struct.unpack_from("<I", head, 0)[0])
        for segment in program.tables(SEGMENTS_FIELD):
            offset, size = segment.number(0, "<Q"), segment.number(1, "<Q")
            if (base + offset, size) == (old.start, old.size):
                struct.pack_into("<Q", head, segment.at(0), new.start - base)
            elif base + offset > old.start:
                struct.pack_into("<Q", head, segment.at(0), offset - cut)
        size = struct.unpack_from("<Q", head, HEADER_AT + 24)[0]
        struct.pack_into("<Q", head, HEADER_AT + 24, size - cut)
        file.seek(0)
        file.write(head)
        place = old.start
        file.seek(place + cut)
        while moved := file.read(BYTES_AT_ONCE):
            file.seek(place)
            place += file.write(moved)
            file.seek(place + cut)
        file.truncate(place)
