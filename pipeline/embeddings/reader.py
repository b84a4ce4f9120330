"""Reading a table: mapped, so that only the pages of the rows in use are ever read."""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contracts import FloatArray
from ..errors import BadArtifact, IntegrityError, UsageError
from .layout import TENSOR, Rows, TableLayout

LARGEST_HEADER_BYTES = 1 << 20
CHUNK_BYTES = 1 << 22
AGAIN = "Pull or build the package again."


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        digest: the SHA-256 of the rows, as the file tells it.
        begin: the byte of the file at which the rows begin.
        data: the rows ``[V, row_bytes]``, mapped.
    """

    path: Path
    layout: TableLayout
    digest: str
    begin: int
    data: Rows

    def rows(self, ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> FloatArray:
        """Float32 ``[N, L, D]`` of N tokens, without the multiplier. Raises UsageError for an id outside the table."""
        wanted = np.asarray(ids, np.int64)
        outside = wanted[(wanted < 0) | (wanted >= self.layout.rows)]
        if outside.size:
            raise UsageError(
                f"token {int(outside[0])} has no row in {self.path.name}: it has rows 0 to {self.layout.rows - 1}."
            )
        return self.layout.dequantize(np.asarray(self.data[wanted]))

    def check_digest(self) -> None:
        """Read all rows and compare. Raises IntegrityError when they are not what was written."""
        found = hashlib.sha256()
        flat = self.data.reshape(-1)
        for begin in range(0, len(flat), CHUNK_BYTES):
            found.update(flat[begin : begin + CHUNK_BYTES].data)
        if found.hexdigest() != self.digest:
            raise IntegrityError(
                f"{self.path} was changed or damaged: SHA-256 {found.hexdigest()[:12]}…, not {self.digest[:12]}….",
                AGAIN,
            )

    def check_layout(self, expected: TableLayout) -> None:
        """Raise BadArtifact when the table is another model's, or of another shape, naming what differs."""
        for name, wanted in vars(expected).items():
            if (found := getattr(self.layout, name)) != wanted:
                raise BadArtifact(
                    f"{self.path} is not the table of {expected.model}: its {name} is {found!r}, not {wanted!r}.", AGAIN
                )


@dataclass
class RowCache:
    """The dequantized rows of the tokens used last; texts repeat their tokens.

    Attributes:
        capacity: rows kept, each L·D float32 values; 0 keeps none.
        hits, misses: rows asked for since the beginning that were kept, and that were not.
    """

    table: Table
    capacity: int
    hits: int = 0
    misses: int = 0
    _kept: OrderedDict[int, FloatArray] = field(default_factory=OrderedDict)

    def rows(self, ids: Sequence[int]) -> FloatArray:
        """As `Table.rows`."""
        return np.stack([self._row(int(token)) for token in ids])

    def _row(self, token: int) -> FloatArray:
        if token in self._kept:
            self.hits += 1
            self._kept.move_to_end(token)
            return self._kept[token]
        row: FloatArray = self.table.rows([token])[0]
        self.misses += 1
        self._kept[token] = row
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return row

    @property
    def hit_rate(self) -> float:
        """Share of rows that were kept, 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    @property
    def kept_bytes(self) -> int:
        """What the kept rows take."""
        return sum(row.nbytes for row in self._kept.values())


def open_table(
    path: Path, expected: TableLayout | None = None, *, check_digest: bool = False, read_ahead: bool = True
) -> Table:
    """Map a table; no row is read, unless the digest shall be compared.

    Without `read_ahead` the kernel fetches the pages of a row that is asked for and no others: for whoever reads rows
    here and there, as a model does, and not the whole table.

    Raises IntegrityError for a file that is cut off or (with `check_digest`) changed, BadArtifact for one that is no
    table or not the `expected` one.
    """
    length, told = _read_header(path)
    entry, metadata = told.get(TENSOR), told.get("__metadata__")
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadArtifact(f"{path} is no embedding table: it does not tell its layout.", AGAIN)
    rows = shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], int) else 0
    layout = TableLayout.from_metadata(metadata, rows, path.name)
    if entry != {"dtype": "U8", "shape": [layout.rows, layout.row_bytes], "data_offsets": [0, layout.data_bytes]}:
        raise BadArtifact(
            f"{path} is no embedding table: its rows are not the {layout.row_bytes} bytes it says.", AGAIN
        )
    size, whole = path.stat().st_size, 8 + length + layout.data_bytes
    if size != whole:
        raise IntegrityError(f"{path} is cut off: it has {size:,} of {whole:,} bytes.", AGAIN)
    data = _mapped(path, 8 + length, layout, read_ahead)
    table = Table(path, layout, metadata.get("sha256", ""), 8 + length, data)
    if expected is not None:
        table.check_layout(expected)
    if check_digest:
        table.check_digest()
    return table


def _mapped(path: Path, begin: int, layout: TableLayout, read_ahead: bool) -> Rows:
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if not read_ahead and hasattr(mmap, "MADV_RANDOM"):
        view.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(view, np.uint8, layout.data_bytes, begin).reshape(layout.rows, layout.row_bytes)


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Length of a safetensors header, and what it says. Raises IntegrityError and BadArtifact."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 0 < length <= LARGEST_HEADER_BYTES:
                raise BadArtifact(f"{path} is no embedding table: its header would be {length:,} bytes long.", AGAIN)
            text = file.read(length)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}.", AGAIN) from error
    if len(text) < length:
        raise IntegrityError(f"{path} is cut off: it ends within its header.", AGAIN)
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"{path} is no embedding table: its header is not JSON ({error}).", AGAIN) from error
    if not isinstance(told, dict):
        raise BadArtifact(f"{path} is no embedding table: its header is not a JSON object.", AGAIN)
    return length, told
