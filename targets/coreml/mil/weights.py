"""Constants of a program as torch tensors, each made once however many functions use it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from kobako.pipeline.errors import BadArtifact

from .program import Literal, Operation, Program

CONSTEXPR = (
    "constexpr_blockwise_shift_scale",
    "constexpr_affine_dequantize",
    "constexpr_lut_to_dense",
    "constexpr_cast",
)


class Constants:
    """Makes torch tensors of literals and constexpr operations, and keeps them by where their bytes lie."""

    def __init__(self, program: Program, half: torch.dtype) -> None:
        self._program, self._half = program, half
        self._made: dict[Any, torch.Tensor] = {}

    def tensor(self, source: Literal | Operation, dtype: torch.dtype) -> torch.Tensor:
        """The constant in the torch type asked for; float16 values are rounded to float16 first. Raises BadArtifact."""
        key = (identity(source), dtype)
        if key not in self._made:
            self._made[key] = (self._literal(source) if isinstance(source, Literal) else self._dense(source)).to(dtype)
        return self._made[key]

    def _literal(self, literal: Literal) -> torch.Tensor:
        values = self._program.array(literal)
        if values.dtype in (np.uint16, np.uint32, np.int64):
            values = values.astype(np.int32)
        return torch.from_numpy(np.array(values))

    def _dense(self, operation: Operation) -> torch.Tensor:
        """A constexpr operation's value, rounded to float16 when that is emulated."""
        makers = {
            "constexpr_blockwise_shift_scale": self._shift_scale,
            "constexpr_affine_dequantize": self._affine,
            "constexpr_lut_to_dense": self._lut,
            "constexpr_cast": lambda one: self._part(one, "source_val").float(),
        }
        dense = makers[operation.type](operation)
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
