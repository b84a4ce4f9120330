"""Constants of a .pte that are made when the file is written, from the mapped weights, a few rows at a time.

Importing this module loads ExecuTorch: its writer takes, besides bytes, data that it asks to write themselves.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import torch
from executorch.exir._serialize._cord import FileBackedData

from .mapped import place_of

Pack = Callable[[torch.Tensor], torch.Tensor]
"""What becomes of some rows of a tensor, row by row."""
BYTES_AT_ONCE = 1 << 22
SMALL_BYTES = 1 << 14
"""Below, a constant is simply bytes."""


def unchanged(rows: torch.Tensor) -> torch.Tensor:
    """The Pack that does nothing."""
    return rows


class Pieces(FileBackedData, ABC):
    """Bytes that come piece by piece, for ExecuTorch's writer, which asks data to write themselves."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._digest: bytes | None = None

    def __len__(self) -> int:
        return self._size

    def __deepcopy__(self, _memo: object) -> Pieces:
        return self

    @abstractmethod
    def parts(self) -> Iterator[bytes | memoryview]:
        """All bytes, in order."""

    @abstractmethod
    def prefix(self, size: int) -> bytes:
        """The first bytes."""

    def sha256(self) -> bytes:
        """Digest of all bytes."""
        if self._digest is None:
            digest = hashlib.sha256()
            for part in self.parts():
                digest.update(part)
            self._digest = digest.digest()
        return self._digest

    def to_bytes(self) -> bytes:
        """All bytes at once."""
        return b"".join(self.parts())

    def write_to_file(self, outfile: IO[bytes]) -> None:
        """Write all bytes."""
        for part in self.parts():
            outfile.write(part)

    def close(self) -> None:
        """Nothing is open."""


class RowsOf(Pieces):
    """The packed rows of a tensor; nothing is kept but the mapped tensor."""

    def __init__(self, tensor: torch.Tensor, pack: Pack = unchanged) -> None:
        super().__init__(len(tensor) * pack(tensor[:1]).nbytes)
        self.tensor, self.pack = tensor, pack

    def parts(self) -> Iterator[bytes | memoryview]:
        """All rows, some at a time."""
        step = max(1, BYTES_AT_ONCE // max(1, self.tensor[:1].nbytes))
        for start in range(0, len(self.tensor), step):
            yield raw(self.pack(self.rows(start, min(start + step, len(self.tensor)))))

    def rows(self, start: int, end: int) -> torch.Tensor:
        """Rows start … end, read from their file when they have one."""
        rows, place = self.tensor[start:end], place_of(self.tensor)
        if place is None:
            return rows
        path, begin = place
        read = np.fromfile(path, np.uint8, rows.nbytes, offset=begin + start * self.tensor[:1].nbytes)
        return torch.from_numpy(read).view(rows.dtype).view(rows.shape)

    def prefix(self, size: int) -> bytes:
        """The first bytes, of as few rows as it takes."""
        found = bytearray()
        for start in range(len(self.tensor)):
            found += raw(self.pack(self.rows(start, start + 1)))
            if len(found) >= size:
                break
        return bytes(found[:size])


class Joined(Pieces):
    """Constants one behind the other, as one."""

    def __init__(self, pieces: Sequence[Any]) -> None:
        super().__init__(sum(len(piece) for piece in pieces))
        self.pieces = pieces

    def parts(self) -> Iterator[bytes | memoryview]:
        """All of the first, then of the next."""
        for piece in self.pieces:
            yield from parts_of(piece)

    def prefix(self, size: int) -> bytes:
        """The first bytes, of as many pieces as it takes."""
        found = b""
        for piece in self.pieces:
            wanted = size - len(found)
            found += piece[:wanted] if isinstance(piece, bytes) else piece.prefix(wanted)
            if len(found) == size:
                break
        return found


def joined(pieces: Sequence[Any]) -> Any:
    """The pieces that `constant` gave as one: bytes, or `Joined`."""
    return b"".join(pieces) if all(isinstance(piece, bytes) for piece in pieces) else Joined(pieces)


def raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor in memory order."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def constant(tensor: torch.Tensor, pack: Pack = unchanged) -> Any:
    """What a .pte shall hold of a tensor: bytes, or for large ones `RowsOf`."""
    if tensor.dim() == 0 or tensor.nbytes < SMALL_BYTES:
        return raw(pack(tensor)).tobytes()
    return RowsOf(tensor, pack)


def parts_of(data: Any) -> Iterator[bytes | memoryview]:
    """The bytes of what `constant` or `joined` gives."""
    if isinstance(data, Pieces):
        yield from data.parts()
    else:
        yield data
