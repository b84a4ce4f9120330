"""Weights read back out of an artifact's own bytes, in the form the pipeline wrote them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kobako.pipeline.contracts import FloatArray
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.protocols import StoredWeight
from kobako.pipeline.weights import SCALES_SUFFIX, SHIFTS_SUFFIX, QuantizedTensor, Shifts

from . import container
from .flatbuffer import schema, text
from .join import parts_of
from .modelfile import ModelFile, open_model, tensors, type_name
from .rewrite import SUMS_PREFIX
from .rows import ROWS_SUFFIX

CHUNK_BYTES = 1 << 22


def unpack_int4(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Two codes per byte, the first in the low half → int8 codes in −8…7."""
    codes = np.empty(len(packed) * 2, np.int8)
    for begin in range(0, len(packed), CHUNK_BYTES):
        piece, place = packed[begin : begin + CHUNK_BYTES], codes[2 * begin : 2 * (begin + CHUNK_BYTES)]
        place[0::2] = (piece << 4).view(np.int8) >> 4
        place[1::2] = piece.view(np.int8) >> 4
    return codes


def stored_weights(model: Path, container_path: Path) -> Iterator[StoredWeight]:
    """Every weight matrix of `model`, after a check that `container_path` carries the same bytes.

    Raises BadArtifact when it does not, or when a file is damaged.
    """
    section = container.model_section(container_path)
    inside = digest(container_path, section.begin, section.end)
    outside = digest(model, 0, model.stat().st_size)
    if inside != outside:
        raise BadArtifact(
            f"{container_path.name} carries another model than {model.name}: SHA-256 {inside[:8]}…, not {outside[:8]}…",
            "Build it again.",
        )
    yield from matrices(model)


def matrices(model: Path) -> Iterator[StoredWeight]:
    """Every weight matrix of a .tflite, each once. Raises BadArtifact when it is damaged."""
    file = open_model(model)
    seen: set[int] = set()
    for subgraph in file.subgraphs():
        for tensor in tensors(subgraph):
            name, data = text(tensor.Name()), file.buffer(tensor.Buffer())
            rows = name.endswith(ROWS_SUFFIX)
            if tensor.Buffer() in seen or not (rows or is_matrix(tensor, data)):
                continue
            seen.add(tensor.Buffer())
            if rows:
                yield StoredWeight(name=name.removesuffix(ROWS_SUFFIX), codes=data, scales=None)
            else:
                yield from apart(read_weight(file, tensor, tensors(subgraph)))
            file.forget(data)


def apart(weight: StoredWeight) -> Iterator[StoredWeight]:
    """A matrix as the parameters that it holds the rows of. Raises BadArtifact when they are not as many."""
    parts, begin = parts_of(weight.name) or [(weight.name, len(weight.codes))], 0
    if sum(rows for _, rows in parts) != len(weight.codes):
        raise BadArtifact(f"{weight.name} has {len(weight.codes)} rows.", "Build the package again, or pull it again.")
    for name, rows in parts:
        own = slice(begin, begin + rows)
        scales = None if weight.scales is None else weight.scales[own]
        offsets = None if weight.offsets is None else weight.offsets[own]
        yield StoredWeight(name=name, codes=weight.codes[own], scales=scales, offsets=offsets)
        begin += rows


def digest(path: Path, begin: int, end: int) -> str:
    """SHA-256 of a part of a file."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(begin)
        while begin < end and (chunk := file.read(min(CHUNK_BYTES, end - begin))):
            sha.update(chunk)
            begin += len(chunk)
    return sha.hexdigest()


def is_matrix(tensor: Any, data: npt.NDArray[np.uint8]) -> bool:
    """Whether this is a constant matrix of weights; block scales and shifts are not."""
    name = text(tensor.Name())
    stored = type_name(tensor.Type()) in {"INT4", "INT8", "FLOAT16"}
    beside = name.endswith((SCALES_SUFFIX, SHIFTS_SUFFIX)) or name.startswith(SUMS_PREFIX)
    return tensor.ShapeLength() == 2 and stored and not beside and len(data) > 0


def read_weight(file: ModelFile, tensor: Any, known: list[Any]) -> StoredWeight:
    """One weight: its codes unpacked, its scales beside them."""
    name, kind = text(tensor.Name()), type_name(tensor.Type())
    shape = (int(tensor.Shape(0)), int(tensor.Shape(1)))
    data = file.buffer(tensor.Buffer())
    if kind == "FLOAT16":
        return StoredWeight(name=name, codes=data.view(np.float16).reshape(shape), scales=None)
    codes = unpack_int4(data) if kind == "INT4" else data.view(np.int8)
    scales = read_scales(file, tensor, known)
    shifts = next((one for one in known if text(one.Name()) == name + SHIFTS_SUFFIX), None)
    if shifts is not None:
        moved = file.buffer(shifts.Buffer()).view(np.int8).reshape(scales.shape)
        held = Shifts(moved, np.asarray(shifts.Quantization().ScaleAsNumpy(), np.float32).reshape(-1, 1))
        whole = QuantizedTensor(codes.reshape(shape), scales, 4, held)
        return StoredWeight(name=name, codes=whole.codes, scales=scales, offsets=whole.offsets)
    return StoredWeight(name=name, codes=codes.reshape(shape), scales=scales)


def read_scales(file: ModelFile, tensor: Any, known: list[Any]) -> FloatArray:
    """Float32 ``[O, G]`` of a quantized tensor."""
    s, quantization = schema(), tensor.Quantization()
    if quantization.DetailsType() != s.QuantizationDetails.BlockwiseQuantization:
        return np.asarray(quantization.ScaleAsNumpy(), np.float32).reshape(-1, 1)
    table = quantization.Details()
    details = s.BlockwiseQuantization()
    details.Init(table.Bytes, table.Pos)
    scales = known[details.Scales()]
    halves = file.buffer(scales.Buffer()).view(np.float16)
    return halves.astype(np.float32).reshape(int(scales.Shape(0)), int(scales.Shape(1)))
