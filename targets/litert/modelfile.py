"""A .tflite file opened for reading: mapped, checked, its tensors found by name."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kobako.pipeline.errors import BadArtifact

from .flatbuffer import IDENTIFIER, schema, text

UNREADABLE = (struct.error, IndexError, ValueError, TypeError, AttributeError, UnicodeDecodeError, OverflowError)
"""What the generated classes raise when offsets point nowhere."""


@dataclass(frozen=True)
class ModelFile:
    """The schema's Model over mapped bytes. Buffers lie inside the flatbuffer, or behind it.

    Attributes:
        data: the model's bytes, a part of `mapping`.
    """

    name: str
    mapping: mmap.mmap
    data: npt.NDArray[np.uint8]
    model: Any

    def buffer(self, index: int) -> npt.NDArray[np.uint8]:
        """Bytes of one buffer; empty for tensors that are computed. Raises BadArtifact beyond the file's end."""
        buffer = self.model.Buffers(index)
        if buffer.Offset() <= 1:
            return np.zeros(0, np.uint8) if buffer.DataIsNone() else np.asarray(buffer.DataAsNumpy())
        begin, end = buffer.Offset(), buffer.Offset() + buffer.Size()
        if end > len(self.data):
            raise BadArtifact(f"{self.name} is cut off: buffer {index} ends at byte {end} of {len(self.data)}.")
        return self.data[begin:end]

    def forget(self, values: npt.NDArray[Any]) -> None:
        """Give back the memory that a buffer of the file took while it was read; it can be read again."""
        begin = values.ctypes.data - np.frombuffer(self.mapping, np.uint8).ctypes.data
        start = begin - begin % mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED, start, begin + values.nbytes - start)

    def subgraphs(self) -> list[Any]:
        return [self.model.Subgraphs(index) for index in range(self.model.SubgraphsLength())]

    def opcode_name(self, index: int) -> str:
        """Name of an entry of the operator table."""
        code = self.model.OperatorCodes(index)
        names = {number: name for name, number in vars(schema().BuiltinOperator).items() if isinstance(number, int)}
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return text(code.CustomCode()) if code.CustomCode() else names[number]


def tensors(subgraph: Any) -> list[Any]:
    """The tensors of a subgraph, in order."""
    return [subgraph.Tensors(index) for index in range(subgraph.TensorsLength())]


def type_name(number: int) -> str:
    """``INT8`` for the schema's number of it."""
    return next(name for name, value in vars(schema().TensorType).items() if value == number)


def open_model(path: Path, begin: int = 0, end: int | None = None) -> ModelFile:
    """Map a .tflite, or the part of a file that is one, and check it. Raises BadArtifact."""
    size = path.stat().st_size
    end = size if end is None else end
    if end - begin < 8:
        raise BadArtifact(f"{path.name} is not a .tflite: it has {end - begin} bytes.")
    with path.open("rb") as stream:
        mapping = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return _checked(path.name, mapping, np.frombuffer(mapping, np.uint8)[begin:end])


def _checked(name: str, mapping: mmap.mmap, data: npt.NDArray[np.uint8]) -> ModelFile:
    if data[4:8].tobytes() != IDENTIFIER:
        raise BadArtifact(f"{name} is not a .tflite: bytes 4 to 8 are {data[4:8].tobytes()!r}, not {IDENTIFIER!r}.")
    try:
        file = ModelFile(name, mapping, data, schema().Model.GetRootAs(data.data, 0))
        _walk(file)
    except UNREADABLE as error:
        raise BadArtifact(f"{name} is damaged: {type(error).__name__}: {error}.", "Build it again.") from error
    return file


def _walk(file: ModelFile) -> None:
    """Touch everything a runtime would follow, so that damage is an exception here and not a crash there."""
    buffers = file.model.BuffersLength()
    for index in range(buffers):
        file.buffer(index)
    for index in range(file.model.OperatorCodesLength()):
        file.opcode_name(index)
    for subgraph in file.subgraphs():
        known = tensors(subgraph)
        for tensor in known:
            needed = _bytes_needed(tensor)
            held = len(file.buffer(tensor.Buffer()))
            if tensor.Buffer() >= buffers or (held and held != needed):
                raise ValueError(f"tensor {text(tensor.Name())} needs {needed} bytes and has {held}")
        for index in range(subgraph.OperatorsLength()):
            operator = subgraph.Operators(index)
            used = [operator.Inputs(i) for i in range(operator.InputsLength())]
            used += [operator.Outputs(i) for i in range(operator.OutputsLength())]
            if max(used, default=0) >= len(known) or operator.OpcodeIndex() >= file.model.OperatorCodesLength():
                raise ValueError(f"operator {index} refers to what does not exist")
    signatures(file)


BITS: Mapping[str, int] = {
    "INT4": 4, "INT8": 8, "UINT8": 8, "BOOL": 8, "FLOAT16": 16, "INT16": 16, "INT64": 64, "FLOAT64": 64,
}  # fmt: skip


def _bytes_needed(tensor: Any) -> int:
    elements = int(np.prod([tensor.Shape(i) for i in range(tensor.ShapeLength())], dtype=np.int64))
    return (elements * BITS.get(type_name(tensor.Type()), 32) + 7) // 8


def signatures(file: ModelFile) -> dict[str, dict[str, Any]]:
    """Signature key → subgraph number, names and shapes of inputs and outputs."""
    found: dict[str, dict[str, Any]] = {}
    graphs = file.subgraphs()
    for index in range(file.model.SignatureDefsLength()):
        signature = file.model.SignatureDefs(index)
        known = tensors(graphs[signature.SubgraphIndex()])
        inputs = [signature.Inputs(i) for i in range(signature.InputsLength())]
        outputs = [signature.Outputs(i) for i in range(signature.OutputsLength())]
        found[text(signature.SignatureKey())] = {
            "subgraph": signature.SubgraphIndex(),
            "inputs": {text(value.Name()): describe(known[value.TensorIndex()]) for value in inputs},
            "outputs": {text(value.Name()): describe(known[value.TensorIndex()]) for value in outputs},
        }
    return found


def describe(tensor: Any) -> dict[str, Any]:
    """Type and shape of a tensor."""
    shape = [int(tensor.Shape(i)) for i in range(tensor.ShapeLength())]
    return {"type": type_name(tensor.Type()), "shape": shape}
