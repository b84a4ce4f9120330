"""Checkpoints that come quantized (GPTQ, AWQ, compressed-tensors), read as the floats they stand for.

Nothing is kept packed: a matrix comes out as float32 ``[O, I]`` whose blocks lie on the source's own 4-bit grid, and
the quantizer finds that grid again where a recipe can hold it (`kobako.pipeline.blocks`), instead of rounding twice.

The layouts are those of GPTQModel's ``gptq`` and ``gptq_v2`` checkpoints, AutoAWQ's ``gemm``, and compressed-tensors'
``pack-quantized``. Shape legend: O outputs, I inputs, G groups, P = 32 / bits values in an int32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contracts import FloatArray, Recipe
from ..errors import UnsupportedModel

Codes = npt.NDArray[np.int32]
ReadTensor = Callable[[str], npt.NDArray[Any]]
"""From a stored tensor's name to the tensor; KeyError when there is none."""

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs each nibble holds, from the lowest."""
PACKED_SUFFIX = {"gptq": "qweight", "awq": "qweight", "compressed-tensors": "weight_packed"}
HELPERS = ("qzeros", "scales", "g_idx", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx")
BLOCK = 32
LARGEST_GROUP = 1 << 20


@dataclass(frozen=True)
class Packing:
    """How a checkpoint is quantized.

    Attributes:
        group_size: inputs that share a scale; None = all of a row.
        scattered: whether a group's inputs lie apart (``desc_act``), so that no block of neighbours shares a scale.
        zeros_less_one: GPTQ's first format stores each zero point less one.
    """

    method: str
    bits: int
    group_size: int | None
    scattered: bool = False
    zeros_less_one: bool = False

    @property
    def suffix(self) -> str:
        """The last part of the name under which packed codes are stored."""
        return PACKED_SUFFIX[self.method]

    def loss_of_grid(self, recipe: Recipe) -> str:
        """Why a recipe cannot keep this checkpoint's grid, for people; empty when it keeps it."""
        if recipe.weight_bits == 16:
            return ""
        if self.bits != 4 or recipe.weight_bits != 4:
            return f"its {self.bits}-bit grid is not one of recipe {recipe.name}"
        if not recipe.asymmetric:
            return f"recipe {recipe.name} has symmetric blocks only"
        if self.scattered:
            return "the inputs of its groups lie apart (desc_act)"
        if self.group_size is not None and self.group_size % (recipe.group_size or BLOCK):
            return f"its groups of {self.group_size} are no multiple of {recipe.group_size}"
        return ""


def packing_of(config: Mapping[str, Any]) -> Packing | None:
    """How the checkpoint with this config.json is quantized; None when it is not.

    Raises UnsupportedModel for methods that kobako cannot read.
    """
    found = config.get("quantization_config")
    if not found:
        return None
    method = str(found.get("quant_method", "some method") if isinstance(found, dict) else "some method")[:40]
    try:
        packing = _READERS[method](found) if method in _READERS else None
    except (KeyError, TypeError, ValueError, AttributeError):  # fields of other kinds than the method has
        packing = None
    if packing is None or packing.bits not in (4, 8):
        raise UnsupportedModel(
            f"these weights are quantized already ({method}), in a form that kobako does not read.",
            "Read: gptq and awq (gemm) in 4 bits, gptq in 8, compressed-tensors' pack-quantized. Or name the original.",
        )
    return packing


def _gptq(found: Mapping[str, Any]) -> Packing:
    return Packing(
        "gptq", _whole(found.get("bits", 0)), _group_size(found.get("group_size", 128)), bool(found.get("desc_act")),
        zeros_less_one=found.get("checkpoint_format", "gptq") != "gptq_v2",
    )  # fmt: skip


def _awq(found: Mapping[str, Any]) -> Packing | None:
    bits = _whole(found.get("bits", found.get("w_bit", 0)))
    if str(found.get("version", "gemm")).lower() != "gemm" or bits != 4:
        return None
    return Packing("awq", bits, _group_size(found.get("group_size", 128)))


def _compressed(found: Mapping[str, Any]) -> Packing | None:
    groups = list(dict(found.get("config_groups") or {}).values())
    if found.get("format") != "pack-quantized" or len(groups) != 1:
        return None
    scheme = groups[0].get("weights") or {}
    if scheme.get("type") != "int" or scheme.get("strategy") not in ("group", "channel"):
        return None
    size = scheme.get("group_size")
    return Packing(
        "compressed-tensors", _whole(scheme["num_bits"]), None if size is None else _group_size(size),
        scheme.get("actorder") in ("group", True),
    )  # fmt: skip


def _whole(value: Any) -> int:
    """A whole number. Raises ValueError for anything else, True and False too."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r:.40} is no whole number")
    return value


def _group_size(value: Any) -> int | None:
    """Inputs of a group; None for −1, all of a row. Raises ValueError for sizes that no layer has."""
    if (size := _whole(value)) == -1:
        return None
    if not 0 < size <= LARGEST_GROUP:
        raise ValueError(f"groups of {size} inputs")
    return size


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Packing | None]] = {
    "gptq": _gptq,
    "awq": _awq,
    "compressed-tensors": _compressed,
}


def original_name(stored: str, packing: Packing | None) -> str | None:
    """The parameter that a stored tensor stands for; None for what only helps to read another."""
    path, _, leaf = stored.rpartition(".")
    if packing is None:
        return stored
    if leaf == packing.suffix:
        return f"{path}.weight"
    return None if leaf in HELPERS else stored


def unpacked(read: ReadTensor, path: str, packing: Packing) -> FloatArray:
    """The weight of the linear layer at `path`, float32 ``[O, I]``.

    Raises KeyError for a tensor that is missing, ValueError or IndexError for tensors that do not fit each other.
    """
    if packing.method == "compressed-tensors":
        return _unpacked_compressed(read, path, packing)
    scales = read(f"{path}.scales").astype(np.float32)  # [G, O]
    if packing.method == "awq":
        codes = _nibbles(read(f"{path}.qweight"), 1, packing.bits, AWQ_ORDER)  # [I, O]
        zeros = _nibbles(read(f"{path}.qzeros"), 1, packing.bits, AWQ_ORDER)  # [G, O]
        group = np.arange(len(codes)) // (packing.group_size or len(codes))
    else:
        codes = _nibbles(read(f"{path}.qweight"), 0, packing.bits)
        zeros = _nibbles(read(f"{path}.qzeros"), 1, packing.bits)
        if packing.zeros_less_one:
            zeros = (zeros + 1) & (2**packing.bits - 1)
        group = _groups(read, f"{path}.g_idx", len(codes), packing)
    return np.ascontiguousarray(((codes - zeros[group]) * scales[group]).T.astype(np.float32))


def _unpacked_compressed(read: ReadTensor, path: str, packing: Packing) -> FloatArray:
    outputs, inputs = (int(size) for size in read(f"{path}.weight_shape"))
    middle = 2 ** (packing.bits - 1)
    codes = _nibbles(read(f"{path}.weight_packed"), 1, packing.bits)[:, : max(inputs, 0)] - middle
    if codes.shape != (outputs, inputs):
        raise ValueError(f"weight_shape is {outputs} × {inputs}, the codes are {codes.shape[0]} × {codes.shape[1]}")
    scales = read(f"{path}.weight_scale").astype(np.float32)  # [O, G]
    group = _groups(read, f"{path}.weight_g_idx", inputs, packing)
    try:
        zeros = read(f"{path}.weight_zero_point")
    except KeyError:
        return np.asarray(codes * scales[:, group], dtype=np.float32)
    if zeros.dtype == np.int32:
        zeros = _nibbles(zeros, 0, packing.bits)[:outputs] - middle
    return np.asarray((codes - zeros.astype(np.int32)[:, group]) * scales[:, group], dtype=np.float32)


def _groups(read: ReadTensor, name: str, inputs: int, packing: Packing) -> npt.NDArray[np.int64]:
    """The group of each input ``[I]``. Raises ValueError for what is none."""
    try:
        groups = read(name)
    except KeyError:
        return np.arange(inputs) // (packing.group_size or inputs)
    if groups.shape != (inputs,) or groups.dtype.kind not in "iu" or (inputs and int(groups.min()) < 0):
        raise ValueError(f"{name} does not tell the groups of {inputs} inputs")
    return groups.astype(np.int64)


def _nibbles(packed: npt.NDArray[Any], axis: int, bits: int, order: tuple[int, ...] | None = None) -> Codes:
    """Codes of int32s, each of which holds P of them along `axis`, the lowest bits first (or in `order`).

    Raises ValueError for what is no matrix of integers.
    """
    if packed.ndim != 2 or packed.dtype.kind not in "iu":
        raise ValueError(f"codes are stored as {packed.dtype} {packed.shape}")
    count = 32 // bits
    shifts = np.arange(0, 32, bits, dtype=np.int32)
    shape = [1, 1, 1]
    shape[axis + 1] = count
    values = (np.expand_dims(packed.astype(np.int32), axis + 1) >> shifts.reshape(shape)) & np.int32(2**bits - 1)
    if order is not None:
        values = np.take(values, np.argsort(order), axis=axis + 1)
    rows, columns = packed.shape
    return values.reshape((rows * count, columns) if axis == 0 else (rows, columns * count)).astype(np.int32)
