"""What a row of a table is made of, and how a file says so: NumPy only.

A row holds, for each layer, the codes of its D values and then their scale:

- 8 bits: D bytes, int8;
- 4 bits: D/2 bytes, two codes each, the first in the low half, both in two's complement (−8…7);
- 16 bits: D values in float16, and no scale.

The scale is bfloat16, little-endian: every scale is exact in it (see `kobako.pipeline.weights`), and any language makes
a float32 of its two bytes by a shift. Value = code × scale; the model multiplies it with `multiplier` when it looks it
up, which the file tells and does not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from ..contracts import FloatArray, Int8Array
from ..errors import BadArtifact
from ..weights import QuantizedTensor, WeightTensor

TABLE_FILE = "embeddings.safetensors"
TENSOR = "rows"
FORMAT = "kobako-embeddings-1"
SCALE_BYTES = 2
LARGEST_SIZE = 1 << 40
"""No table has more rows, layers or values than this; what says so is damaged."""

Rows = npt.NDArray[np.uint8]
Bits = Literal[4, 8, 16]
HALVES: FloatArray = (
    np.stack([np.arange(256) << 4, np.arange(256)], axis=1).astype(np.uint8).view(np.int8) >> 4
).astype(np.float32)
PAIRS = HALVES.view(np.uint64).reshape(-1)
"""The two codes that a byte holds, float32 each, as one number ``[256]``: taken together they are found faster."""


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """Whose rows these are, and their shape.

    Attributes:
        model: name of the model that the table belongs to.
        parameter: the Hugging Face parameter ``[V, L·D]`` that it holds.
        rows, layers, width: V, L and D.
        bits: of a code; 16 = float16 values without scales.
        multiplier: what the model multiplies a row with when it looks it up.
    """

    model: str
    parameter: str
    rows: int
    layers: int
    width: int
    bits: Bits
    multiplier: float

    @property
    def code_bytes(self) -> int:
        """Bytes of one layer's codes."""
        return self.width * self.bits // 8

    @property
    def record_bytes(self) -> int:
        """Bytes of one layer's codes and scale."""
        return self.code_bytes + (SCALE_BYTES if self.bits < 16 else 0)

    @property
    def row_bytes(self) -> int:
        """Bytes of all layers of one token."""
        return self.layers * self.record_bytes

    @property
    def data_bytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.row_bytes

    def pack(self, values: WeightTensor) -> Rows:
        """Rows ``[N, row_bytes]`` of codes ``[N, L·D]`` with scales ``[N, L]``, or of float16 values ``[N, L·D]``.

        Raises ValueError when they are not of this layout.
        """
        if not isinstance(values, QuantizedTensor):
            if self.bits != 16 or values.dtype != np.float16 or values.shape[1] != self.layers * self.width:
                raise ValueError(f"values {values.dtype} {values.shape} are no rows of {self.bits} bits")
            return np.ascontiguousarray(values.astype("<f2", copy=False)).view(np.uint8)
        count = len(values.codes)
        shapes = values.codes.shape == (count, self.layers * self.width) and values.scales.shape == (count, self.layers)
        if values.bits != self.bits or values.shifts is not None or not shapes:
            raise ValueError(f"codes {values.codes.shape} of {values.bits} bits are no rows of {self}")
        packed = np.empty((count, self.layers, self.record_bytes), np.uint8)
        packed[:, :, : self.code_bytes] = self._packed_codes(values.codes)
        packed[:, :, self.code_bytes :] = bfloat16_bytes(values.scales)
        return packed.reshape(count, self.row_bytes)

    def _packed_codes(self, codes: Int8Array) -> Rows:
        whole = codes.reshape(len(codes), self.layers, self.width).view(np.uint8)
        if self.bits == 8:
            return whole
        return cast("Rows", (whole[:, :, 0::2] & np.uint8(15)) | (whole[:, :, 1::2] << np.uint8(4)))

    def unpack(self, rows: Rows) -> WeightTensor:
        """The opposite of `pack`: codes and scales of rows ``[N, row_bytes]``, or float16 values."""
        if self.bits == 16:
            return np.ascontiguousarray(rows).view("<f2").astype(np.float16, copy=False)
        packed, scales = self._records(rows)
        codes = np.take(PAIRS, packed).view(np.float32).astype(np.int8) if self.bits == 4 else packed.view(np.int8)
        return QuantizedTensor(codes.reshape(len(rows), -1), scales, self.bits)

    def dequantize(self, rows: Rows) -> FloatArray:
        """Float32 ``[N, L, D]`` of rows ``[N, row_bytes]``, without the multiplier."""
        if self.bits == 16:
            return np.ascontiguousarray(rows).view("<f2").astype(np.float32).reshape(-1, self.layers, self.width)
        packed, scales = self._records(rows)
        codes = np.take(PAIRS, packed).view(np.float32) if self.bits == 4 else packed.view(np.int8)
        return codes.reshape(len(rows), self.layers, self.width) * scales[:, :, None]

    def _records(self, rows: Rows) -> tuple[Rows, FloatArray]:
        """Codes as they are stored ``[N, L, code bytes]``, and scales ``[N, L]``."""
        records = np.ascontiguousarray(rows).reshape(len(rows), self.layers, self.record_bytes)
        packed = np.ascontiguousarray(records[:, :, : self.code_bytes])
        return packed, bfloat16_values(records[:, :, self.code_bytes :])

    def to_metadata(self, digest: str) -> dict[str, str]:
        """The safetensors metadata of a file; `digest` is the SHA-256 of its data in hexadecimal."""
        return {
            "format": FORMAT,
            "model": self.model,
            "parameter": self.parameter,
            "layers": str(self.layers),
            "width": str(self.width),
            "bits": str(self.bits),
            "scales": "none" if self.bits == 16 else "bfloat16",
            "row": "for each layer: codes, then their scale" if self.bits < 16 else "for each layer: float16 values",
            "multiplier": repr(self.multiplier),
            "sha256": digest,
        }

    @staticmethod
    def from_metadata(told: Mapping[str, str], rows: int, where: str) -> TableLayout:
        """The layout that a file `where` tells of itself. Raises BadArtifact."""
        if told.get("format") != FORMAT:
            raise BadArtifact(
                f"{where} is no embedding table that this kobako reads: its format is {told.get('format')!r:.60}, "
                f"not {FORMAT!r}.",
                "Pull or build the package again.",
            )
        try:
            bits = int(told["bits"])
            layout = TableLayout(
                model=told["model"], parameter=told["parameter"], rows=rows, layers=int(told["layers"]),
                width=int(told["width"]), bits=cast("Bits", bits), multiplier=float(told["multiplier"]),
            )  # fmt: skip
            sizes = all(0 < size < LARGEST_SIZE for size in (layout.rows, layout.layers, layout.width))
            if bits not in (4, 8, 16) or not sizes or not np.isfinite(layout.multiplier) or layout.width * bits % 8:
                raise ValueError(f"{layout}")
        except (KeyError, ValueError) as error:
            raise BadArtifact(
                f"{where} does not tell the layout of its rows: {error}.", "Pull or build the package again."
            ) from error
        return layout


def bfloat16_bytes(values: FloatArray) -> Rows:
    """Float32 ``[…]`` → little-endian bfloat16 bytes ``[…, 2]``. Raises ValueError for values it cannot hold."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    if (bits & np.uint32(0xFFFF)).any():
        raise ValueError("scales are not exact in bfloat16")
    return (bits >> np.uint32(16)).astype("<u2").view(np.uint8).reshape(*values.shape, SCALE_BYTES)


def bfloat16_values(data: Rows) -> FloatArray:
    """The opposite of `bfloat16_bytes`."""
    halves = np.ascontiguousarray(data).view("<u2")[..., 0]
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
