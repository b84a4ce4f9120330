"""Writing a table: rows pass through as they come; the file is complete under its name, or not there at all.

8 bytes                 length of the header, as in every safetensors file
header                  JSON, padded with spaces so that the data begins on a page
V × row_bytes bytes     the rows
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from ..errors import IntegrityError
from ..place import scratch_beside
from ..weights import WeightTensor
from .layout import TENSOR, TableLayout

PAGE_BYTES = 4096
NO_DIGEST = "0" * 64
"""Holds the digest's place until the last row has been written."""


def write_table(path: Path, layout: TableLayout, blocks: Iterable[WeightTensor]) -> str:
    """Write the rows of `blocks`, one after another, as the table `path`; the SHA-256 of the data.

    No more than a block is in memory. Whatever is raised, nothing stands under the final name that did not before.
    Raises IntegrityError when the blocks have more or fewer rows than the layout, OSError when the disk is full.
    """
    partial = scratch_beside(path)
    try:
        with partial.open("xb") as file:
            digest = _write(file, layout, blocks)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest


def _write(file: IO[bytes], layout: TableLayout, blocks: Iterable[WeightTensor]) -> str:
    file.write(header(layout, NO_DIGEST))
    digest, written = hashlib.sha256(), 0
    for block in blocks:
        rows = layout.pack(block)
        digest.update(rows.data)
        file.write(rows.data)
        written += len(rows)
    if written != layout.rows:
        raise IntegrityError(
            f"{layout.parameter} of {layout.model} has {written} rows, the model says {layout.rows}.",
            "Fetch the model again.",
        )
    file.seek(0)
    file.write(header(layout, digest.hexdigest()))
    return digest.hexdigest()


def header(layout: TableLayout, digest: str) -> bytes:
    """All bytes before the first row."""
    entry = {"dtype": "U8", "shape": [layout.rows, layout.row_bytes], "data_offsets": [0, layout.data_bytes]}
    text = json.dumps({"__metadata__": layout.to_metadata(digest), TENSOR: entry}).encode()
    padded = text.ljust(-(-(len(text) + 8) // PAGE_BYTES) * PAGE_BYTES - 8)
    return struct.pack("<Q", len(padded)) + padded
