"""A saved ``.mlpackage`` as frozen values: functions, operations, constants, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kobako.pipeline.errors import BadArtifact

from .blob import BlobFile
from .proto import schema

MODEL_DIR = "com.apple.CoreML"
BYTE_VALUES = {"float16": np.float16, "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16}


@dataclass(frozen=True)
class TensorType:
    """Element type by MIL's name and static shape; -1 where a dimension is unknown."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Literal:
    """A constant: given in the program, or lying at `offset` of the weight file."""

    type: TensorType
    value: Any = None
    offset: int | None = None


Operand = str | Literal


@dataclass(frozen=True)
class Operation:
    """One MIL operation. `outputs` pairs value names with their types."""

    type: str
    name: str
    inputs: Mapping[str, tuple[Operand, ...]]
    attributes: Mapping[str, Literal]
    outputs: tuple[tuple[str, TensorType], ...]


@dataclass(frozen=True)
class Function:
    """A function's inputs, states and outputs by name, and its operations in order."""

    name: str
    inputs: Mapping[str, TensorType]
    states: Mapping[str, TensorType]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]

    def types(self) -> dict[str, TensorType]:
        """Types of every value in the function."""
        made = {name: kind for operation in self.operations for name, kind in operation.outputs}
        return {**self.inputs, **self.states, **made}


@dataclass(frozen=True)
class Program:
    """A package read from disk. `metadata` is the model's user-defined dictionary."""

    path: Path
    functions: Mapping[str, Function]
    default_function: str
    metadata: Mapping[str, str]
    specification_version: int
    blob: BlobFile | None

    def array(self, literal: Literal) -> npt.NDArray[Any]:
        """A literal's numbers, wherever they lie. Raises BadArtifact."""
        if literal.offset is None:
            return np.asarray(literal.value)
        if self.blob is None:
            raise BadArtifact(f"{self.path.name} refers to weights but holds none.", "Export the model again.")
        self._check(literal, self.blob)
        return self.blob.read(literal.offset, literal.type.shape)

    def rows(self, literal: Literal, begin: int, end: int) -> npt.NDArray[Any]:
        """Rows (along the first axis) of a literal's numbers. Raises BadArtifact."""
        if literal.offset is None or self.blob is None:
            return self.array(literal)[begin:end]
        shape = literal.type.shape
        self._check(literal, self.blob)
        row = prod(shape[1:])
        return self.blob.part(literal.offset, shape, begin * row, end * row).reshape(end - begin, *shape[1:])

    def _check(self, literal: Literal, blob: BlobFile) -> None:
        entry = blob.entry(literal.offset or 0)
        if entry.dtype != literal.type.dtype:
            raise BadArtifact(f"byte {literal.offset} holds {entry.dtype}, the program expects {literal.type.dtype}.")


def read_package(path: Path) -> Program:
    """Read an ``.mlpackage`` from disk. Raises BadArtifact for anything missing, truncated or not an ML program."""
    from google.protobuf.message import DecodeError

    model_file = root_model(path)
    model = schema("Model_pb2").Model()
    try:
        model.ParseFromString(model_file.read_bytes())
    except (DecodeError, OSError) as error:
        raise BadArtifact(f"{path.name}: the model file does not parse: {error}.", "Export the model again.") from error
    if model.WhichOneof("Type") != "mlProgram":
        raise BadArtifact(f"{path.name} holds {model.WhichOneof('Type') or 'nothing'}, not an ML program.")
    weights = model_file.parent / "weights" / "weight.bin"
    try:
        functions = {name: read_function(name, proto) for name, proto in sorted(model.mlProgram.functions.items())}
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise BadArtifact(f"{path.name}: a function does not decode: {error!r}.", "Export the model again.") from error
    if not functions:
        raise BadArtifact(f"{path.name} holds no function.", "Export the model again.")
    return Program(
        path=path, functions=functions, metadata=dict(model.description.metadata.userDefined),
        default_function=model.description.defaultFunctionName or "main",
        specification_version=model.specificationVersion, blob=BlobFile(weights) if weights.exists() else None,
    )  # fmt: skip


def root_model(path: Path) -> Path:
    """The model file that a package's manifest names. Raises BadArtifact; never a path outside the package."""
    try:
        manifest = json.loads((path / "Manifest.json").read_text())
        entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
        model = (path / "Data" / entry).resolve()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadArtifact(f"{path} is not a Core ML package: {type(error).__name__}: {error}.") from error
    if not model.is_relative_to(path.resolve()) or not model.is_file():
        raise BadArtifact(f"{path.name}: its manifest names {entry!r}, which is not in it.")
    return model


def read_function(name: str, proto: Any) -> Function:
    """One MIL function. Raises BadArtifact when it has no block for its opset, or more than one level of blocks."""
    if proto.opset not in proto.block_specializations:
        raise BadArtifact(f"function {name} has no block for its opset {proto.opset!r}.")
    block = proto.block_specializations[proto.opset]
    inputs: dict[str, TensorType] = {}
    states: dict[str, TensorType] = {}
    for value in proto.inputs:
        if value.type.WhichOneof("type") == "stateType":
            states[value.name] = read_type(value.type.stateType.wrappedType)
        else:
            inputs[value.name] = read_type(value.type)
    operations = tuple(read_operation(operation) for operation in block.operations)
    return Function(name, inputs, states, tuple(block.outputs), operations)


def read_operation(proto: Any) -> Operation:
    """One MIL operation. Raises BadArtifact for control flow, which no converted language model has."""
    attributes = {key: read_value(value) for key, value in proto.attributes.items()}
    name = str(attributes["name"].value) if "name" in attributes else ""
    if proto.blocks:
        raise BadArtifact(f"operation {name} ({proto.type}) holds nested blocks, which are not supported.")
    inputs = {
        key: tuple(
            bound.name if bound.WhichOneof("binding") == "name" else read_value(bound.value)
            for bound in value.arguments
        )
        for key, value in proto.inputs.items()
    }
    outputs = tuple((value.name, read_type(value.type)) for value in proto.outputs)
    return Operation(proto.type, name, inputs, attributes, outputs)


def read_type(proto: Any) -> TensorType:
    """A tensor type; tuples and other kinds become a type called after them."""
    if proto.WhichOneof("type") != "tensorType":
        return TensorType(str(proto.WhichOneof("type")), ())
    tensor = proto.tensorType
    enum = schema("MIL_pb2").DataType.Name(tensor.dataType).lower()
    shape = tuple(
        int(dim.constant.size) if dim.WhichOneof("dimension") == "constant" else -1 for dim in tensor.dimensions
    )
    return TensorType(enum, shape)


def read_value(proto: Any) -> Literal:
    """A MIL value: numbers and strings given inline are decoded, weights stay references."""
    kind = read_type(proto.type)
    if proto.WhichOneof("value") == "blobFileValue":
        return Literal(kind, offset=int(proto.blobFileValue.offset))
    if proto.immediateValue.WhichOneof("value") != "tensor":
        return Literal(kind)
    tensor = proto.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if field is None:
        return Literal(kind, np.zeros(kind.shape, np.float32))
    values = getattr(tensor, field).values
    if field == "strings":
        return Literal(kind, values[0] if not kind.shape else list(values))
    flat = np.frombuffer(values, BYTE_VALUES.get(kind.dtype, np.uint8)) if field == "bytes" else np.array(values)
    if kind.dtype == "float32":
        flat = flat.astype(np.float32)
    if flat.size != prod(kind.shape):
        raise BadArtifact(f"a constant of shape {kind.shape} comes with {flat.size} values.", "Export the model again.")
    return Literal(kind, flat.reshape(kind.shape))
