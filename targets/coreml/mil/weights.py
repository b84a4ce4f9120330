"""Constants of a program as torch tensors, each made once however many functions use it.

Matrices are kept as long as all of them fit into RESIDENT_BYTES; those beyond are made again whenever an operation
needs them. The numbers are the same: only when they are made differs.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.rows import row_slices

from .program import Literal, Operation, Program, TensorType

CONSTEXPR = (
    "constexpr_blockwise_shift_scale",
    "constexpr_affine_dequantize",
    "constexpr_lut_to_dense",
    "constexpr_cast",
)
RESIDENT_BYTES = 6_000_000_000
"""Three billion parameters in float16; beyond that memory is dearer than time."""
SMALL_BYTES = 1 << 16
"""What is smaller is always kept: norms, rotary tables, masks."""


class Constants:
    """Makes torch tensors of literals and constexpr operations, and keeps them by where their bytes lie."""

    def __init__(self, program: Program, half: torch.dtype) -> None:
        self._program, self._half = program, half
        self._made: dict[Any, torch.Tensor] = {}
        self._left = RESIDENT_BYTES
        self._room: dict[torch.dtype, torch.Tensor] = {}

    def resident(self, source: Literal | Operation, dtype: torch.dtype) -> bool:
        """Whether a constant is kept, or there is room to keep it."""
        size = prod(type_of(source).shape) * dtype.itemsize
        return size < SMALL_BYTES or (identity(source), dtype) in self._made or size <= self._left

    def tensor(self, source: Literal | Operation, dtype: torch.dtype) -> torch.Tensor:
        """The constant in the torch type asked for; float16 values are rounded to float16 first. Raises BadArtifact."""
        key = (identity(source), dtype)
        if key not in self._made:
            self._made[key] = self._new(source, dtype)
            self._left -= self._made[key].nbytes
        return self._made[key]

    def fresh(self, source: Literal | Operation, dtype: torch.dtype) -> torch.Tensor:
        """The same, made anew and not kept: valid until the next is asked for. Raises BadArtifact."""
        if isinstance(source, Literal) or not by_rows(source):
            return self._new(source, dtype)
        shape = type_of(source).shape
        if dtype not in self._room or self._room[dtype].numel() < prod(shape):
            self._room[dtype] = torch.empty(prod(shape), dtype=dtype)
        return self._filled(source, self._room[dtype][: prod(shape)].view(shape))  # new pages cost more than numbers

    def clear(self) -> None:
        """Forget all of them."""
        self._made.clear()
        self._room.clear()

    def _new(self, source: Literal | Operation, dtype: torch.dtype) -> torch.Tensor:
        if isinstance(source, Literal):
            return self._literal(source).to(dtype)
        if not by_rows(source):
            return self._dense(source).to(dtype)
        return self._filled(source, torch.empty(type_of(source).shape, dtype=dtype))

    def _filled(self, source: Operation, made: torch.Tensor) -> torch.Tensor:
        for part in row_slices(tuple(made.shape)):
            made[part] = self.rows(source, part.start, min(part.stop, len(made)))
        return made

    def rows(self, source: Operation, begin: int, end: int) -> torch.Tensor:
        """Some rows of a blockwise constant (see `by_rows`). Raises BadArtifact."""
        parts = {
            key: self._rows(source, key, begin, end) for key in ("data", "scale", "offset") if key in source.inputs
        }
        blocks = parts["scale"].shape[1]
        dense = parts["data"].reshape(end - begin, blocks, -1).float()
        if "offset" in parts:
            dense -= parts["offset"].float()[:, :, None]
        dense *= parts["scale"].float()[:, :, None]
        return self._rounded(source, dense.reshape(end - begin, -1))

    def _rows(self, operation: Operation, key: str, begin: int, end: int) -> torch.Tensor:
        operand = operation.inputs[key][0]
        assert isinstance(operand, Literal)  # by_rows
        return torch.from_numpy(self._program.rows(operand, begin, end))

    def _literal(self, literal: Literal) -> torch.Tensor:
        values = self._program.array(literal)
        if values.dtype in (np.uint16, np.uint32, np.int64):
            values = values.astype(np.int32)
        return torch.from_numpy(values if values.flags.writeable else np.array(values))

    def _dense(self, operation: Operation) -> torch.Tensor:
        """A constexpr operation's value, rounded to float16 when that is emulated."""
        makers = {
            "constexpr_blockwise_shift_scale": self._shift_scale,
            "constexpr_affine_dequantize": self._affine,
            "constexpr_lut_to_dense": self._lut,
            "constexpr_cast": lambda one: self._part(one, "source_val").float(),
        }
        return self._rounded(operation, makers[operation.type](operation))

    def _rounded(self, operation: Operation, dense: torch.Tensor) -> torch.Tensor:
        return dense.half() if operation.outputs[0][1].dtype == "float16" and self._half == torch.float16 else dense

    def _shift_scale(self, operation: Operation) -> torch.Tensor:
        data, scale = self._part(operation, "data"), self._part(operation, "scale").float()
        dense = data.float()
        if "offset" in operation.inputs:
            dense = dense - spread(self._part(operation, "offset").float(), data.shape)
        return dense.mul_(spread(scale, data.shape))

    def _affine(self, operation: Operation) -> torch.Tensor:
        data = self._part(operation, "quantized_data").float()
        axis = int(self._part(operation, "axis")) if "axis" in {**operation.inputs, **operation.attributes} else 0
        shape = [-1 if index == axis else 1 for index in range(data.dim())]
        zero = self._part(operation, "zero_point").float()
        scale = self._part(operation, "scale").float()
        return (data - (zero.reshape(shape) if zero.dim() else zero)) * (scale.reshape(shape) if scale.dim() else scale)

    def _lut(self, operation: Operation) -> torch.Tensor:
        indices, lut = self._part(operation, "indices").long(), self._part(operation, "lut").float()
        if lut.dim() != indices.dim() + 2 or lut.shape[-1] != 1:
            raise BadArtifact(f"{operation.name}: only lookup tables of single values are supported.", "")
        table = spread(lut[..., 0].movedim(-1, 0).contiguous(), (lut.shape[-2], *indices.shape))
        return table.gather(0, indices[None])[0]

    def _part(self, operation: Operation, key: str) -> torch.Tensor:
        operand = operation.inputs[key][0] if key in operation.inputs else operation.attributes.get(key)
        if not isinstance(operand, Literal):
            raise BadArtifact(f"{operation.type} {operation.name}: {key} is not a stored constant.", "Export again.")
        return self._literal(operand)


def by_rows(source: Literal | Operation) -> bool:
    """Whether a constant is a stored matrix with blocks inside its rows: all that kobako's exports hold."""
    if isinstance(source, Literal) or source.type != "constexpr_blockwise_shift_scale":
        return False
    shape, parts = source.outputs[0][1].shape, [many[0] for many in source.inputs.values()]
    if len(shape) != 2 or not all(isinstance(one, Literal) and one.offset is not None for one in parts):
        return False
    shapes = {key: many[0].type.shape for key, many in source.inputs.items() if isinstance(many[0], Literal)}
    scale = shapes.get("scale", ())
    fits = len(scale) == 2 and scale[0] == shape[0] and scale[1] > 0 and shape[1] % scale[1] == 0
    return fits and shapes.get("data") == shape and shapes.get("offset", scale) == scale


def type_of(source: Literal | Operation) -> TensorType:
    """The type of a constant."""
    return source.type if isinstance(source, Literal) else source.outputs[0][1]


def identity(source: Literal | Operation) -> Any:
    """A key equal for constants made of the same bytes in the same way."""
    if isinstance(source, Literal):
        return (source.type, source.offset) if source.offset is not None else id(source)
    parts = [(key, identity(one)) for key, many in source.inputs.items() for one in many if isinstance(one, Literal)]
    return (source.type, *sorted(parts, key=str)) if parts else id(source)


def spread(blocks: torch.Tensor, shape: tuple[int, ...] | torch.Size) -> torch.Tensor:
    """Repeat each element of `blocks` so that the result has `shape`; block sizes are whole by MIL's definition."""
    for axis, (have, want) in enumerate(zip(blocks.shape, shape, strict=True)):
        if want % have:
            raise BadArtifact(f"{have} blocks do not divide an axis of {want}.", "Export the model again.")
        if 1 < have < want:
            blocks = blocks.repeat_interleave(want // have, dim=axis)
    return blocks
