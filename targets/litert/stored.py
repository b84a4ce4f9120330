"""The weights as rewriting sees them: what each one is; its bytes are read and packed when the file is written.

Shape legend: O outputs, I inputs, G = I / group size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from kobako.pipeline.contracts import FloatArray, Int8Array
from kobako.pipeline.tensorfile import TensorFile
from kobako.pipeline.weights import SCALES_SUFFIX, SHIFT_SCALES_SUFFIX, SHIFTS_SUFFIX, WEIGHTS_FILE

Bytes = npt.NDArray[np.uint8]
Pieces = Callable[[], Iterable[Bytes]]
"""The bytes of something large, a megabyte at a time; a piece is valid until the next one is asked for."""

BITS: Mapping[str, int] = {"INT4": 4, "INT8": 8, "FLOAT16": 16, "FLOAT32": 32}


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Scales ``[O, G]`` of a matrix."""

    shape: tuple[int, int]
    pieces: Callable[[], Iterable[FloatArray]]

    def read(self) -> FloatArray:
        """All of them."""
        return np.concatenate([piece.copy() for piece in self.pieces()]).reshape(self.shape)

    def halves(self) -> Iterator[Bytes]:
        """The bytes of all of them as float16."""
        return (piece.astype(np.float16).view(np.uint8) for piece in self.pieces())


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One constant of the file to come.

    Attributes:
        kind: its type in LiteRT's schema.
        pieces: its bytes as LiteRT has them: 4-bit codes are two to a byte.
        scales: of a quantized matrix.
        shifts: int8 codes ``[O, G]`` of an asymmetric matrix, with one scale per row.
    """

    kind: Literal["INT4", "INT8", "FLOAT16", "FLOAT32"]
    shape: tuple[int, ...]
    pieces: Pieces
    scales: Scales | None = None
    shifts: Stored | None = None

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * BITS[self.kind] // 8


def stored_parameters(quantized_dir: Path) -> Mapping[str, Stored]:
    """All parameters of a Quantized's directory, by name."""
    file = TensorFile(quantized_dir / WEIGHTS_FILE)
    beside = (SCALES_SUFFIX, SHIFTS_SUFFIX, SHIFT_SCALES_SUFFIX)
    return {name: _stored(file, name) for name in file.names() if not name.endswith(beside)}


def _stored(file: TensorFile, name: str) -> Stored:
    if name + SCALES_SUFFIX not in file:
        half = file.kind(name) == "F16"
        return Stored(kind="FLOAT16" if half else "FLOAT32", shape=file.shape(name), pieces=lambda: _raw(file, name))
    shifts = None
    if name + SHIFTS_SUFFIX in file:
        shifts = _codes(file, name + SHIFTS_SUFFIX, name + SHIFT_SCALES_SUFFIX, 8)
    return _codes(file, name, name + SCALES_SUFFIX, int(file.metadata[name + ".bits"]), shifts)


def _codes(file: TensorFile, name: str, scales: str, bits: int, shifts: Stored | None = None) -> Stored:
    return Stored(
        kind="INT4" if bits == 4 else "INT8",
        shape=file.shape(name),
        pieces=lambda: map(pack_int4, file.pieces(name)) if bits == 4 else _raw(file, name),
        scales=Scales(shape=(file.shape(scales)[0], file.shape(scales)[1]), pieces=lambda: file.pieces(scales)),
        shifts=shifts,
    )


def _raw(file: TensorFile, name: str) -> Iterator[Bytes]:
    return (piece.view(np.uint8) for piece in file.pieces(name))


def pack_int4(codes: npt.NDArray[Any]) -> Bytes:
    """Int8 codes in −8…7 → two per byte, the first in the low half."""
    flat = codes.reshape(-1).view(np.uint8)
    packed: Bytes = (flat[0::2] & np.uint8(15)) | (flat[1::2] << np.uint8(4))
    return packed


def stored_rows(codes: Int8Array, scales: FloatArray) -> Stored:
    """Codes ``[O, I]`` and one scale per row, which are in memory."""
    data = np.ascontiguousarray(codes).reshape(-1).view(np.uint8)
    held = Scales(shape=(len(scales), 1), pieces=lambda: (scales.reshape(-1),))
    return Stored(kind="INT8", shape=codes.shape, pieces=lambda: (data,), scales=held)
