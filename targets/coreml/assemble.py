"""Lowered functions + matrices → one ``.mlpackage`` on disk.

Matrices become constants here: ``constexpr_blockwise_shift_scale`` holding the given codes and scales, or float16
``const``. Each lies once in the weight file, whatever number of functions and operations uses it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kobako.pipeline.weights import QuantizedTensor, WeightTensor

from .lower import Lowered, value_name
from .mil.blob import BlobFile
from .mil.program import MODEL_DIR
from .mil.proto import schema

WEIGHTS_PATH = "@model_path/weights/weight.bin"
IOS18 = 9  # Core ML specification version: multiple functions, states and blockwise weights
UPDATE = re.compile(r"^(coreml_update_state_)(\d+)")
Array = npt.NDArray[Any]


class WeightFile:
    """The weight file being written by Core ML's own writer; equal tensors are stored once."""

    def __init__(self, path: Path) -> None:
        from coremltools.libmilstoragepython import _BlobStorageWriter

        self._writer = _BlobStorageWriter(str(path))
        self._offsets: dict[tuple[str, bytes], int] = {}

    def add(self, values: Array, dtype: str) -> int:
        """Write values of a MIL type (int4 as int8 codes); the offset of their entry."""
        flat = np.ascontiguousarray(values).reshape(-1)
        key = dtype, sha256(flat.view(np.uint8).data).digest()
        if key not in self._offsets:
            self._offsets[key] = self._write(flat, dtype)
        return self._offsets[key]

    def _write(self, flat: Array, dtype: str) -> int:
        if dtype == "float16":
            return int(self._writer.write_fp16_data(flat.astype(np.float16, copy=False).view(np.uint16)))
        method = "write_float_data" if dtype == "float32" else f"write_{dtype}_data"
        return int(getattr(self._writer, method)(flat))

    def value(self, values: Array, dtype: str) -> Any:
        """The MIL value that refers to `values` in the file."""
        mil = schema("MIL_pb2")
        blob = mil.Value.BlobFileValue(fileName=WEIGHTS_PATH, offset=self.add(values, dtype))
        return mil.Value(type=tensor_type(values.shape, dtype), blobFileValue=blob)


def tensor_type(shape: Iterable[int], dtype: str) -> Any:
    """The MIL type of a tensor."""
    mil = schema("MIL_pb2")
    kind = mil.ValueType()
    kind.tensorType.dataType = mil.DataType.Value(dtype.upper())
    for size in shape:
        kind.tensorType.dimensions.add().constant.size = size
    kind.tensorType.rank = len(kind.tensorType.dimensions)
    return kind


def string_value(text: str) -> Any:
    """A MIL string constant."""
    value = schema("MIL_pb2").Value(type=tensor_type((), "string"))
    value.immediateValue.tensor.strings.values.append(text.encode())
    return value


def constant(name: str, tensor: WeightTensor, bits: int, file: WeightFile) -> Any:
    """The operation that makes the matrix `name` out of its stored form."""
    mil = schema("MIL_pb2")
    quantized = isinstance(tensor, QuantizedTensor)
    operation = mil.Operation(type="constexpr_blockwise_shift_scale" if quantized else "const")
    operation.attributes["name"].CopyFrom(string_value(name))
    if isinstance(tensor, QuantizedTensor):
        shape = tensor.codes.shape
        parts = {"data": file.value(tensor.codes, f"int{bits}"), "scale": file.value(half(tensor.scales), "float16")}
        if tensor.offsets is not None:  # Core ML subtracts its offset
            parts["offset"] = file.value(-tensor.offsets, "float16")
        for key, value in parts.items():
            operation.inputs[key].arguments.add().value.CopyFrom(value)
    else:
        shape = tensor.shape
        operation.attributes["val"].CopyFrom(file.value(tensor, "float16"))
    operation.outputs.add(name=name).type.CopyFrom(tensor_type(shape, "float16"))
    return operation


def half(scales: Array) -> Array:
    """Scales as float16. Raises ValueError when that would change one: the codes would no longer mean the same."""
    exact = scales.astype(np.float16)
    if not np.array_equal(exact.astype(np.float32), scales):
        raise ValueError("a scale is not exact in float16")
    return exact


def matrices(weights: Mapping[str, WeightTensor], names: Iterable[str], file: WeightFile) -> dict[str, Any]:
    """One constant operation per matrix, by MIL name, written to `file` in the order of `names`."""
    made: dict[str, Any] = {}
    for name in names:
        tensor = weights[name]
        bits = tensor.bits if isinstance(tensor, QuantizedTensor) else 16
        made[value_name(name)] = constant(value_name(name), tensor, bits, file)
    return made


def function_proto(lowered: Lowered, constants: Mapping[str, Any], file: WeightFile) -> Any:
    """The lowered function with its matrix inputs replaced by `constants` and its small constants moved to `file`."""
    mil = schema("MIL_pb2")
    function = mil.Function()
    function.ParseFromString(lowered.function.SerializeToString())  # into our own classes, whoever loaded them
    kept = [value for value in function.inputs if value.name not in constants]
    del function.inputs[:]
    function.inputs.extend(kept)
    block = function.block_specializations[function.opset]
    renumber(block)
    # The converter's passes put constants in an order that varies from run to run; by name it does not.
    small = sorted((o for o in block.operations if o.type == "const"), key=lambda o: str(o.outputs[0].name))
    relocate(small, BlobFile(lowered.weights_file), file, lowered.values)
    biases = make_linear(block, constants, file)
    operations = [*constants.values(), *biases, *small, *(o for o in block.operations if o.type != "const")]
    used = {bound.name for o in operations for argument in o.inputs.values() for bound in argument.arguments}
    used.update(block.outputs)
    del block.operations[:]
    block.operations.extend(o for o in operations if o.type != "const" or o.outputs[0].name in used)
    return function


def renumber(block: Any) -> None:
    """Number state updates from 0 in their order: coremltools counts them through the life of the process."""
    order: dict[str, str] = {}

    def named(text: str) -> str:
        return UPDATE.sub(lambda found: found[1] + order.setdefault(found[2], str(len(order))), text)

    for operation in block.operations:
        strings = operation.attributes["name"].immediateValue.tensor.strings.values
        strings[0] = named(strings[0].decode()).encode() if isinstance(strings[0], bytes) else named(strings[0])
        for output in operation.outputs:
            output.name = named(output.name)
        for bound in (one for argument in operation.inputs.values() for one in argument.arguments):
            if bound.WhichOneof("binding") == "name":
                bound.name = named(bound.name)
    block.outputs[:] = [named(name) for name in block.outputs]


def relocate(small: Iterable[Any], source: BlobFile, file: WeightFile, other: Mapping[str, Array]) -> None:
    """Move every constant that lies in the conversion's weight file into ours, or the `other` values given by name."""
    for operation in small:
        name = operation.outputs[0].name
        if name in other:
            operation.attributes["val"].CopyFrom(file.value(other[name], "float16"))
            continue
        for value in operation.attributes.values():
            if value.WhichOneof("value") != "blobFileValue":
                continue
            shape = tuple(dim.constant.size for dim in value.type.tensorType.dimensions)
            entry = source.entry(value.blobFileValue.offset)
            value.CopyFrom(file.value(source.read(value.blobFileValue.offset, shape), entry.dtype))


def make_linear(block: Any, constants: Mapping[str, Any], file: WeightFile) -> list[Any]:
    """Turn ``matmul(x, matrixᵀ)`` into ``linear``, the form Core ML compiles for constant weights.

    Returns the zero biases, which coremltools writes too, one per number of outputs.
    """
    biases: dict[int, Any] = {}
    for operation in block.operations:
        if operation.type != "matmul" or operation.inputs["y"].arguments[0].name not in constants:
            continue
        matrix = operation.inputs["y"].arguments[0].name
        outputs = constants[matrix].outputs[0].type.tensorType.dimensions[0].constant.size
        if outputs not in biases:
            biases[outputs] = constant(f"no_bias_{outputs}", np.zeros(outputs, np.float16), 16, file)
        for key in ("y", "transpose_x", "transpose_y"):
            del operation.inputs[key]
        operation.type = "linear"
        operation.inputs["weight"].arguments.add().name = matrix
        operation.inputs["bias"].arguments.add().name = biases[outputs].outputs[0].name
    return list(biases.values())


def model_proto(
    functions: Mapping[str, Any], lowered: Mapping[str, Lowered], constants: Mapping[str, Any],
    metadata: Mapping[str, str], default: str,
) -> Any:  # fmt: skip
    """The whole model file: programs, and the description that Core ML shows to an app."""
    model = schema("Model_pb2").Model(specificationVersion=IOS18)
    model.mlProgram.version = 1
    description = schema("Model_pb2").ModelDescription
    for name, function in functions.items():
        model.mlProgram.functions[name].CopyFrom(function)
        source = description()
        source.ParseFromString(lowered[name].description.SerializeToString())
        made = model.description.functions.add(name=name)
        made.input.extend(feature for feature in source.input if feature.name not in constants)
        made.output.extend(source.output)
        made.state.extend(source.state)
    model.description.defaultFunctionName = default
    for key, text in metadata.items():
        model.description.metadata.userDefined[key] = text
    return model


def write_package(package: Path, model: Any, weight_file: Path) -> None:
    """Write the package's three files; the weight file is moved, not copied. The bytes depend on the content only."""
    data = package / "Data" / MODEL_DIR
    (data / "weights").mkdir(parents=True)
    weight_file.rename(data / "weights" / "weight.bin")
    (data / "model.mlmodel").write_bytes(model.SerializeToString(deterministic=True))
    identifiers = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, f"kobako:{name}")) for name in ("model.mlmodel", "weights")}
    descriptions = {"model.mlmodel": "CoreML Model Specification", "weights": "CoreML Model Weights"}
    entries = {
        identifiers[name]: {
            "author": MODEL_DIR, "description": descriptions[name], "name": name, "path": f"{MODEL_DIR}/{name}",
        }
        for name in identifiers
    }  # fmt: skip
    manifest = {
        "fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": identifiers["model.mlmodel"],
    }  # fmt: skip
    (package / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n")
