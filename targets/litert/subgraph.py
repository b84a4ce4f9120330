"""One subgraph being rewritten: new tensors, constants and builtin operators put into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from kobako.pipeline.embeddings import Table

from .flatbuffer import LazyBuffer, constant, schema
from .stored import Pieces, Stored


@dataclass
class Constants:
    """Weights as buffers of one model: each is stored once, however many subgraphs and operators read it."""

    model: Any
    weights: Mapping[str, Stored]
    table: Table | None = None
    buffers: dict[str, int] = field(default_factory=dict)

    def buffer(self, name: str, size_bytes: int, pieces: Pieces) -> int:
        if name not in self.buffers:
            self.buffers[name] = len(self.model.buffers)
            self.model.buffers.append(LazyBuffer(size_bytes, pieces))
        return self.buffers[name]


@dataclass
class Subgraph:
    """The subgraph `graph` of `model`; `operators` are those that it will have."""

    model: Any
    graph: Any
    names: Mapping[int, str]  # tensor index → name of the weight it stands for
    constants: Constants
    operators: list[Any] = field(default_factory=list)
    extra: dict[str, int] = field(default_factory=dict)  # constants that the traced graph does not name

    def append(self, tensor: Any) -> int:
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def emit(self, builtin: str, inputs: list[int], outputs: list[int], options: Any = None, version: int = 1) -> None:
        s = schema()
        operator = s.OperatorT()
        operator.opcodeIndex = opcode_index(self.model, getattr(s.BuiltinOperator, builtin), version)
        operator.inputs, operator.outputs = inputs, outputs
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(s.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(operator)

    def shape(self, index: int) -> list[int]:
        """Sizes of a tensor."""
        return [int(size) for size in self.graph.tensors[index].shape]

    def like(self, index: int, channels: int) -> int:
        """A new float32 tensor with the shape of `index`, but for its last axis."""
        return self.like_shape([*self.shape(index)[:-1], channels])

    def like_shape(self, shape: list[int], kind: int | None = None) -> int:
        """A new tensor, float32 unless `kind` (a number of the schema) is given."""
        s = schema()
        tensor = s.TensorT()
        tensor.name, tensor.hasRank, tensor.shape = f"kobako.{len(self.graph.tensors)}", True, shape
        tensor.type = s.TensorType.FLOAT32 if kind is None else kind
        return self.append(tensor)

    def constant_tensor(self, name: str, values: npt.NDArray[Any]) -> int:
        """A small constant of this subgraph that is no parameter; stored once in the file."""
        if name not in self.extra:
            s = schema()
            tensor = s.TensorT()
            tensor.name, tensor.hasRank, tensor.shape = name, True, list(values.shape)
            tensor.type = getattr(s.TensorType, values.dtype.name.upper())
            tensor.buffer = self.constants.buffer(name, values.nbytes, constant(values).pieces)
            self.extra[name] = self.append(tensor)
        return self.extra[name]

    def integers(self, values: list[int]) -> int:
        """A constant of int32 values ``[N]``."""
        return self.constant_tensor("kobako.int32_" + "x".join(map(str, values)), np.asarray(values, np.int32))

    def number(self, value: float) -> int:
        """A constant of one float32 value."""
        return self.constant_tensor(f"kobako.float32_{value:g}", np.asarray([value], np.float32))

    def shaped(self, index: int, shape: list[int]) -> int:
        """The tensor `index` in another shape."""
        result = self.like_shape(shape, self.graph.tensors[index].type)
        self.reshape(index, result)
        return result

    def reshape(self, source: int, target: int) -> None:
        """Copy `source` into `target`, whose shape differs."""
        sizes = self.shape(target)
        options = schema().ReshapeOptionsT()
        options.newShape = sizes
        self.emit("RESHAPE", [source, self.integers(sizes)], [target], options)


def opcode_index(model: Any, code: int, version: int) -> int:
    """Index of a builtin operator in the model's table, added when it is missing."""
    for index, known in enumerate(model.operatorCodes):
        if (known.builtinCode, known.version) == (code, version):
            return index
    added = schema().OperatorCodeT()
    added.builtinCode, added.version, added.deprecatedBuiltinCode = code, version, min(code, 127)
    model.operatorCodes.append(added)
    return len(model.operatorCodes) - 1
