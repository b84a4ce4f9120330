"""Codes and scales read back out of the bytes of a ``model.pte``: the proof that nothing was quantized again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from kobako.pipeline.contracts import FloatArray, Int8Array
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.protocols import StoredWeight
from kobako.pipeline.weights import QuantizedTensor, Shifts

from .pte import DECODE, EMBEDDING_ENTRY, ENCODE, HINT, NAMES_KEY, ROWS_ENTRY, PteFile, open_pte
from .xnngraph import StaticTensor, static_tensors

SIDE = ".side.weight"
ROWS_OPERATOR = "aten::index_select"
EMBEDDING_OPERATORS = ("quantized_decomposed::embedding_byte", "aten::embedding")


def stored_weights(path: Path) -> Iterator[StoredWeight]:
    """Every weight matrix of a .pte, one at a time; a tied table comes twice, as embedding and as head.

    Raises BadArtifact when the file is damaged or was not written by kobako.
    """
    with open_pte(path) as pte:
        if NAMES_KEY not in pte.named:
            raise BadArtifact(f"{path.name} does not tell the names of its weights.", "Only kobako's own .pte do.")
        listed: dict[str, str] = json.loads(pte.bytes_of(pte.named[NAMES_KEY]))
        outside = listed.pop(ROWS_ENTRY, "")
        if outside:
            yield outside_rows(pte, outside)
        tables = listed.pop(EMBEDDING_ENTRY, "model.embed_tokens.weight").split()
        for method, name in zip(entries(pte), tables, strict=False):  # the second method may read the first one's
            yield embedding(pte, method, name, outside)
        for _, payload in (one for method in entries(pte) for one in pte.delegate_payloads(method)):
            tensors = named_tensors(payload, listed)
            for name, tensor in tensors.items():
                if tensor.dtype != "float32" and not name.endswith(SIDE):  # not the norms
                    yield shifted(pte, matrix(pte, name, tensor), tensors.get(name.removesuffix(".weight") + SIDE))


def named_tensors(payload: bytes, listed: Mapping[str, str]) -> dict[str, StaticTensor]:
    """The constants of a delegate by the names of the model's; several may be rows of one."""
    known = {one.key: one for one in static_tensors(payload)}
    found = {}
    for name, told in listed.items():
        key, *rows = told.split()
        if key in known:
            found[name] = known[key] if not rows else replace(known[key], rows=(int(rows[0]), int(rows[1])))
    return found


def entries(pte: PteFile) -> tuple[str, ...]:
    """The methods that compute: one, or the two of an encoder-decoder."""
    return ("forward",) if "forward" in pte.method_names() else (ENCODE, DECODE)


def matrix(pte: PteFile, name: str, tensor: StaticTensor) -> StoredWeight:
    """One constant of a delegate as codes and scales."""
    data, shape = rows_of(pte.bytes_of(pte.named[tensor.key]), tensor), (-1, *tensor.shape[1:])
    if tensor.dtype == "float16":
        return StoredWeight(name=name, codes=np.frombuffer(data, np.float16).reshape(shape), scales=None)
    if tensor.dtype == "qcint8":
        codes: Int8Array = np.frombuffer(data, np.int8).reshape(shape)
    elif tensor.dtype == "qbint4":
        codes = unpack_nibbles(data).reshape(shape)
    else:
        raise BadArtifact(f"{name} is stored as {tensor.dtype}.", HINT)
    raw = rows_of(pte.bytes_of(pte.named[tensor.scales_key]), tensor)
    return StoredWeight(name=name, codes=codes, scales=scales_of(raw, tensor, len(codes)))


def rows_of(data: bytes, tensor: StaticTensor) -> bytes:
    """The bytes of a constant's own rows."""
    if tensor.rows is None:
        return data
    row = len(data) // tensor.shape[0]
    return data[tensor.rows[0] * row : tensor.rows[1] * row]


def shifted(pte: PteFile, weight: StoredWeight, side: StaticTensor | None) -> StoredWeight:
    """A matrix with the shifts of its blocks, which a layer of their own holds."""
    if side is None:
        return weight
    shifts = matrix(pte, weight.name, side)
    assert weight.scales is not None
    assert shifts.scales is not None
    whole = QuantizedTensor(weight.codes, weight.scales, 4, Shifts(shifts.codes, shifts.scales))
    return StoredWeight(name=weight.name, codes=weight.codes, scales=weight.scales, offsets=whole.offsets)


def scales_of(raw: bytes, tensor: StaticTensor, rows: int) -> FloatArray:
    """Scales ``[O, G]`` float32: bfloat16 in the file for groups, float32 for rows."""
    dtype = ml_dtypes.bfloat16 if tensor.group_size else np.float32
    return np.frombuffer(raw, dtype).astype(np.float32).reshape(rows, -1)


def unpack_nibbles(data: bytes) -> Int8Array:
    """int4 codes in −8…7, low nibble first, from XNNPACK's offset-by-8 bytes."""
    packed = np.frombuffer(data, np.uint8)
    codes = np.empty(2 * packed.size, np.int8)
    codes[::2] = (packed & 15).astype(np.int8) - 8
    codes[1::2] = (packed >> 4).astype(np.int8) - 8
    return codes


def outside_rows(pte: PteFile, told: str) -> StoredWeight:
    """The rows of a per-layer table, as bytes; `told` names it and the sizes of its constant. Raises BadArtifact."""
    for tensor in picked_tensors(pte, entries(pte)[0]):
        if is_outside(tensor, told):
            size = int(np.prod(tensor.sizes)) * (2 if tensor.scalar_type.name == "HALF" else 1)
            data = np.frombuffer(pte.constant(tensor, size), np.uint8)
            return StoredWeight(name=told.split(maxsplit=1)[0], codes=data, scales=None)
    raise BadArtifact(f"{pte.path.name} looks up no rows of {told.split(maxsplit=1)[0]}.", HINT)


def is_outside(tensor: Any, told: str) -> bool:
    """Whether a constant is the table that `told` describes."""
    return [str(size) for size in tensor.sizes] == told.split()[1:]


def picked_tensors(pte: PteFile, method: str) -> list[Any]:
    """The constants whose rows a method picks, in its order."""
    plan = pte.method(method)
    picking = {index for index, item in enumerate(plan.operators) if item.name == ROWS_OPERATOR}
    calls: list[Any] = [one.instr_args for one in plan.chains[0].instructions]
    return [plan.values[call.args[0]].val for call in calls if getattr(call, "op_index", None) in picking]


def embedding(pte: PteFile, method: str, name: str, outside: str = "") -> StoredWeight:
    """The token embedding: the constants that the lookup operators of a method are called with.

    `outside` describes a table whose rows are picked too, and which this is not. Learned positions are looked up too,
    but are plain float32.
    """
    plan = pte.method(method)
    wanted = {i for i, item in enumerate(plan.operators) if item.name in EMBEDDING_OPERATORS}
    for instruction in plan.chains[0].instructions:
        call: Any = instruction.instr_args
        if getattr(call, "op_index", None) in wanted:
            tensors = [plan.values[index].val for index in call.args[:2]]
            if tensors[0].scalar_type.name != "FLOAT":
                return table(pte, name, tensors)
    found = [one for one in picked_tensors(pte, method) if len(one.sizes) == 2 and not is_outside(one, outside)]
    if len(found) < 4:
        raise BadArtifact(f"{pte.path.name} looks up no embedding.", HINT)
    return grouped_table(pte, name, found[:4])


def table(pte: PteFile, name: str, tensors: list[Any]) -> StoredWeight:
    """The embedding's rows, from the first two arguments of the lookup."""
    rows, width = (int(size) for size in tensors[0].sizes)
    if tensors[0].scalar_type.name == "HALF":
        half = np.frombuffer(pte.constant(tensors[0], rows * width * 2), np.float16).reshape(rows, width)
        return StoredWeight(name=name, codes=half, scales=None)
    codes = np.frombuffer(pte.constant(tensors[0], rows * width), np.int8).reshape(rows, width)
    scales = np.frombuffer(pte.constant(tensors[1], rows * 4), np.float32).reshape(rows, 1)
    return StoredWeight(name=name, codes=codes, scales=scales)


def grouped_table(pte: PteFile, name: str, tensors: list[Any]) -> StoredWeight:
    """Rows in 4-bit blocks: packed codes, scales, shifts and the shifts' scales, in the order they are looked up."""
    rows, half = (int(size) for size in tensors[0].sizes)
    groups = int(tensors[1].sizes[1])
    codes = unpack_nibbles(pte.constant(tensors[0], rows * half)).reshape(rows, 2 * half)
    scales = np.frombuffer(pte.constant(tensors[1], rows * groups * 2), ml_dtypes.bfloat16).astype(np.float32)
    moved = np.frombuffer(pte.constant(tensors[2], rows * groups), np.int8).reshape(rows, groups)
    shift_scales = np.frombuffer(pte.constant(tensors[3], rows * 4), np.float32).reshape(rows, 1)
    whole = QuantizedTensor(codes, scales.reshape(rows, groups), 4, Shifts(moved, shift_scales))
    return StoredWeight(name=name, codes=whole.codes, scales=whole.scales, offsets=whole.offsets)
