"""One copy of a tied table: the delegate's data is made to lie where the program's constant already lies.

ExecuTorch keeps constants of host operators (the embedding) and named data of delegates (the head) in segments of
their own. Segments are extents of the file, and nothing says that two may not name the same bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from .flat import Table
from .pte import HEADER_AT, Extent, open_pte

SEGMENTS_FIELD = 4  # of table Program


def share_segment(path: Path, key: str) -> int:
    """Drop the named data `key` when the constant segment holds the same bytes; bytes saved, 0 when it does not."""
    with open_pte(path) as pte:
        if key not in pte.named or pte.program.constant_segment is None:
            return 0
        extent = pte.named[key]
        constants = pte.segments[pte.program.constant_segment.segment_index]
        offset = find(pte, constants, extent)
        if offset is None:
            return 0
        base = struct.unpack_from("<Q", pte.data, HEADER_AT + 16)[0]
        later = [item.start for item in pte.segments if item.start > extent.start]
        end = min(later, default=len(pte.data))
        tail = pte.data[end:]
    patch(path, extent, Extent(constants.start + offset, extent.size), end - extent.start, base, tail)
    return end - extent.start


def find(pte: Any, constants: Extent, wanted: Extent) -> int | None:
    """Offset inside the constant segment of the bytes of an extent."""
    view = memoryview(pte.data)
    try:
        for offset in map(int, pte.program.constant_segment.offsets):
            start = constants.start + offset
            if start + wanted.size <= constants.start + constants.size and (
                view[start : start + wanted.size] == view[wanted.start : wanted.start + wanted.size]
            ):
                return offset
        return None
    finally:
        view.release()


def patch(path: Path, old: Extent, new: Extent, cut: int, base: int, tail: bytes) -> None:
    """Move the tail of the file down over the dropped bytes, and rewrite extents and header to match."""
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
        file.seek(old.start)
        file.write(tail)
        file.truncate()
