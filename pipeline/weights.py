"""The quantized weights file: reading, writing and dequantizing it. NumPy only, no torch.

``weights.safetensors`` holds, for each parameter NAME of the Hugging Face model:

- quantized: ``NAME`` int8 ``[O, I]`` (codes; int4 codes lie in −8…7, int8 codes in −127…127) and
  ``NAME.scales`` float32 ``[O, G]``, G = 1 for one scale per output channel. Value = code × scale;
- asymmetric blocks have, besides, ``NAME.shifts`` int8 ``[O, G]`` and ``NAME.shift_scales`` float32 ``[O, 1]``:
  value = code × scale + shift × shift scale;
- plain: ``NAME`` float16 (recipe ``float16``'s matrices) or float32 (norms, biases).

A tied head has no entry: its matrix is the embedding's. Every scale is exact in bfloat16 *and* float16, since
XNNPACK keeps block scales in bfloat16 while LiteRT and Core ML keep them in float16. Shifts are int8 with one scale
per row because that is what a linear layer over the sums of the blocks holds (docs/adr/0006): XNNPACK and LiteRT have
symmetric kernels for 4-bit blocks only, and carry the shifts in such a second layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .contracts import FloatArray, Int8Array, Quantized
from .rows import over_rows, row_slices
from .tensorfile import TensorFile, write_tensors

WEIGHTS_FILE = "weights.safetensors"
SCALES_SUFFIX = ".scales"
SHIFTS_SUFFIX = ".shifts"
SHIFT_SCALES_SUFFIX = ".shift_scales"


@dataclass(frozen=True)
class Shifts:
    """What is added to every value of a block: int8 codes ``[O, G]`` × float32 scales ``[O, 1]``."""

    codes: Int8Array
    scales: FloatArray

    def dequantize(self) -> FloatArray:
        """Float32 ``[O, G]``."""
        return self.codes.astype(np.float32) * self.scales


@dataclass(frozen=True)
class QuantizedTensor:
    """Codes int8 ``[O, I]`` and scales float32 ``[O, G]``; value = code × its group's scale, + its group's shift."""

    codes: Int8Array
    scales: FloatArray
    bits: int
    shifts: Shifts | None = None

    @property
    def group_size(self) -> int:
        """Inputs that share a scale (= I when there is one scale per output channel)."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    @property
    def offsets(self) -> npt.NDArray[np.float16] | None:
        """Shifts in steps of their block, ``[O, G]`` float16: value = (code + offset) × scale; None when symmetric.

        This is the form in which Core ML stores them, and the one in which the proof compares them.
        """
        return None if self.shifts is None else (self.shifts.dequantize() / self.scales).astype(np.float16)

    def symmetric_part(self) -> FloatArray:
        """Codes × scales, without the shifts: float32 ``[O, I]``."""
        values = np.empty(self.codes.shape, np.float32)

        def fill(rows: slice) -> None:
            values[rows] = self.codes[rows]
            grouped = values[rows].reshape(-1, self.scales.shape[1], self.group_size)
            grouped *= self.scales[rows][:, :, None]  # in place, while the part is in the cache

        over_rows(self.codes.shape, fill)
        return values

    def dequantize(self) -> FloatArray:
        """Float32 ``[O, I]``."""
        values = self.symmetric_part()
        if self.shifts is not None:
            grouped = values.reshape(*self.scales.shape, -1)
            grouped += self.shifts.dequantize()[:, :, None]
        return values


PlainTensor = npt.NDArray[Any]
WeightTensor = QuantizedTensor | PlainTensor


class QuantizedWeights(Mapping[str, WeightTensor]):
    """The tensors of a ``weights.safetensors``, read one at a time, or a few rows of one."""

    def __init__(self, path: Path) -> None:
        self._file = TensorFile(path)
        keys = self._file.names()
        self._scaled = {key.removesuffix(SCALES_SUFFIX) for key in keys if key.endswith(SCALES_SUFFIX)}
        self._shifted = {key.removesuffix(SHIFTS_SUFFIX) for key in keys if key.endswith(SHIFTS_SUFFIX)}
        suffixes = (SCALES_SUFFIX, SHIFTS_SUFFIX, SHIFT_SCALES_SUFFIX)
        self._names = dict.fromkeys(key for key in sorted(keys) if not key.endswith(suffixes))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> WeightTensor:
        if name not in self._names:
            raise KeyError(name)
        return self._made(name, self._file.read)

    def rows(self, name: str, begin: int, end: int) -> WeightTensor:
        """Rows `begin` to `end` of one parameter."""
        return self._made(name, lambda stored: self._file.rows(stored, begin, end))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one parameter."""
        return self._file.shape(name)

    def shifted(self, name: str) -> bool:
        """Whether a parameter has asymmetric blocks."""
        return name in self._shifted

    def shifts(self, name: str) -> Shifts:
        """The shifts of such a parameter. Raises KeyError for another."""
        return Shifts(self._file.read(name + SHIFTS_SUFFIX), self._file.read(name + SHIFT_SCALES_SUFFIX))

    def _made(self, name: str, read: Callable[[str], PlainTensor]) -> WeightTensor:
        values = read(name)
        if name not in self._scaled:
            return values
        scales, shifts = read(name + SCALES_SUFFIX), None
        if name in self._shifted:
            shifts = Shifts(read(name + SHIFTS_SUFFIX), read(name + SHIFT_SCALES_SUFFIX))
        return QuantizedTensor(values, scales, int(self._file.metadata[name + ".bits"]), shifts)

    def matrix_shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a parameter that is quantized or float16, without reading it; None for the small float32 ones."""
        return self._file.shape(name) if name in self._scaled or self._file.kind(name) == "F16" else None

    def dequantized(self, name: str) -> FloatArray:
        """Float32 values of one parameter, whatever it is stored as."""
        return dequantized(self[name])


def dequantized(tensor: WeightTensor) -> FloatArray:
    """Float32 values of a tensor, whatever it is stored as."""
    return tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor.astype(np.float32)


def open_weights(quantized_dir: Path) -> QuantizedWeights:
    """Open the weights of a Quantized's directory."""
    return QuantizedWeights(quantized_dir / WEIGHTS_FILE)


def write_weights(path: Path, tensors: Iterable[tuple[str, WeightTensor]]) -> None:
    """Write tensors to one safetensors file, in the layout described at the top, each as it comes."""
    metadata = {"format": "kobako-quantized-1"}

    def flat() -> Iterator[tuple[str, PlainTensor]]:
        for name, tensor in tensors:
            if not isinstance(tensor, QuantizedTensor):
                yield name, tensor
                continue
            metadata[name + ".bits"] = str(tensor.bits)
            yield name, tensor.codes
            yield name + SCALES_SUFFIX, tensor.scales
            if tensor.shifts is not None:
                yield name + SHIFTS_SUFFIX, tensor.shifts.codes
                yield name + SHIFT_SCALES_SUFFIX, tensor.shifts.scales

    write_tensors(path, flat(), metadata)


def representable_scales(scales: FloatArray) -> FloatArray:
    """Round scales to the nearest values that bfloat16 and float16 both hold exactly; never zero.

    bfloat16 has 8 significant bits; below 2**-17 float16's subnormals have fewer, so the second rounding bites.
    Raises OverflowError when a scale is not finite or beyond float16's range.
    """
    if not np.isfinite(scales).all() or (scales > 65280).any():
        raise OverflowError(f"scale {scales.max()} cannot be held in float16")
    bits = scales.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.maximum(rounded.astype(np.float16).astype(np.float32), np.float32(2.0**-24))


def round_to_nearest(weight: FloatArray, bits: int, group_size: int | None) -> QuantizedTensor:
    """Symmetric round-to-nearest of a matrix ``[O, I]``: scale = max|w| / (2**(bits-1) - 1) per group."""
    outputs, inputs = weight.shape
    limit = 2 ** (bits - 1) - 1
    group = group_size or inputs
    codes = np.empty((outputs, inputs), np.int8)
    scales = np.empty((outputs, inputs // group), np.float32)
    for rows in row_slices(weight.shape):
        grouped = weight[rows].reshape(-1, inputs // group, group).astype(np.float32)
        scales[rows] = representable_scales(np.abs(grouped).max(axis=2) / np.float32(limit))
        steps = np.rint(grouped / scales[rows][:, :, None])
        codes[rows] = np.clip(steps, -limit, limit).reshape(-1, inputs)
    return QuantizedTensor(codes, scales, bits)


def weight_digest(codes: PlainTensor, scales: FloatArray | None, offsets: npt.NDArray[np.float16] | None = None) -> str:
    """SHA-256 of one stored weight: its codes in row-major order, then its scales, then its offsets."""
    digest = hashlib.sha256(np.ascontiguousarray(codes).view(np.uint8).data)  # no copy: a table may be mapped
    if scales is not None:
        digest.update(np.ascontiguousarray(scales, dtype=np.float32).tobytes())
    if offsets is not None:
        digest.update(np.ascontiguousarray(offsets + np.float16(0.0)).tobytes())  # no negative zeros
    return digest.hexdigest()


def weight_digests(quantized: Quantized) -> dict[str, str]:
    """SHA-256 of every matrix the recipe stores, by parameter name."""
    weights = open_weights(quantized.directory)
    digests = {}
    for name in weights:
        tensor = weights[name]
        if isinstance(tensor, QuantizedTensor):
            digests[name] = weight_digest(tensor.codes, tensor.scales, tensor.offsets)
        elif tensor.dtype == np.float16:
            digests[name] = weight_digest(tensor, None)
    return digests


def stored_bytes(tensor: WeightTensor) -> int:
    """Bytes a tensor takes in an artifact: packed codes, 16-bit scales, and a byte for each shift."""
    if isinstance(tensor, QuantizedTensor):
        shifts = 0 if tensor.shifts is None else tensor.shifts.codes.size + 4 * tensor.shifts.scales.size
        return tensor.codes.size * tensor.bits // 8 + 2 * tensor.scales.size + shifts
    return tensor.nbytes


def stored_bytes_by_part(quantized_dir: Path) -> dict[str, int]:
    """Stored bytes summed by part of the model: each projection's name, the embedding, everything else."""
    weights = open_weights(quantized_dir)
    sums: dict[str, int] = {}
    for name in weights:
        tensor = weights[name]
        matrix = isinstance(tensor, QuantizedTensor) or (tensor.ndim == 2 and name.endswith(".weight"))
        part = name.split(".")[-2] if matrix else "norms and biases"
        sums[part] = sums.get(part, 0) + stored_bytes(tensor)
    return sums
