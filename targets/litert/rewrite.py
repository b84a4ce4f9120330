"""A traced graph → a LiteRT graph: opaque operators become builtin ones, named inputs become constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from kobako.pipeline.embeddings import Table
from kobako.pipeline.errors import UnsupportedRecipe
from kobako.pipeline.weights import SHIFTS_SUFFIX

from . import opaque
from .flatbuffer import LazyBuffer, constant, schema, text
from .join import Group, groups, joined, joined_name
from .rows import fill_rows, look_up_rows
from .stored import Scales, Stored, stored_rows
from .subgraph import Constants, Subgraph
from .trace import CACHE_PREFIX, WEIGHT_PREFIX

SUMS_PREFIX = "kobako.block_sums_"


def block_ones(inputs: int, blocks: int) -> Stored:
    """The layer that sums blocks of its inputs: codes ``[blocks, inputs]`` of 0 and 1, scale 1."""
    codes = np.repeat(np.eye(blocks, dtype=np.int8), inputs // blocks, axis=1)
    return stored_rows(codes, np.ones((blocks, 1), np.float32))


@dataclass
class Rewriter(Subgraph):
    """Rewrites one subgraph in place."""

    dense: dict[int, int] = field(default_factory=dict)  # float16 constant → its float32 copy
    sums: dict[tuple[int, int], int] = field(default_factory=dict)  # (activations, blocks) → sums of the blocks
    aliases: dict[int, int] = field(default_factory=dict)
    groups: Sequence[Group] = ()

    def run(self) -> None:
        together = {name for group in self.groups for name in (*group.weights, *group.biases)}
        for index, name in self.names.items():
            if name not in together:
                self.fill(index, name)
        handlers: dict[str, Callable[[Any], None]] = {
            opaque.LINEAR: self.linear,
            opaque.LOOKUP: self.lookup,
            opaque.MATMUL: self.matmul,
            opaque.WRITE: self.write,
            opaque.MARK: self.mark,
            opaque.GELU: self.gelu,
        }
        for operator in self.graph.operators:
            operator.inputs = [self.readable(self.aliases.get(i, i)) for i in operator.inputs]
            handlers.get(opaque.call_name(operator), self.operators.append)(operator)
        self.graph.operators = self.operators

    def fill(self, index: int, name: str) -> None:
        """Make tensor `index` the constant `name`."""
        if (table := self.table_named(name)) is not None:
            fill_rows(self, index, table)
            return
        self.store(self.graph.tensors[index], name, self.constants.weights[name])

    def store(self, tensor: Any, name: str, weight: Stored) -> None:
        """Make a tensor the constant `weight`."""
        tensor.name, tensor.type = name, getattr(schema().TensorType, weight.kind)
        if weight.scales is not None:
            tensor.quantization = self.quantization(name, weight, weight.scales)
        tensor.buffer = self.constants.buffer(name, weight.size_bytes, weight.pieces)

    def table_named(self, name: str) -> Table | None:
        """The per-layer table, when that is the parameter's name."""
        table = self.constants.table
        return table if table is not None and table.layout.parameter == name else None

    def quantization(self, name: str, weight: Stored, scales: Scales) -> Any:
        s = schema()
        parameters = s.QuantizationParametersT()
        parameters.quantizedDimension = 0
        rows, blocks = scales.shape
        if blocks == 1:
            parameters.scale = scales.read().reshape(-1)
            parameters.zeroPoint = np.zeros(rows, np.int64)
            return parameters
        size = weight.shape[1] // blocks
        if weight.kind != "INT4":
            raise UnsupportedRecipe(
                f"{name} has 8-bit codes in groups of {size}; LiteRT groups 4-bit codes only.",
                "Use --recipe int8 or int4.",
            )
        beside = s.TensorT()
        beside.name, beside.type, beside.shape = f"{name}.scales", s.TensorType.FLOAT16, [rows, blocks]
        beside.hasRank = True
        beside.buffer = self.constants.buffer(beside.name, 2 * rows * blocks, scales.halves)
        details = s.BlockwiseQuantizationT()
        details.scales, details.zeroPoints, details.blockSize = self.append(beside), -1, size
        parameters.detailsType = s.QuantizationDetails.BlockwiseQuantization
        parameters.details = details
        return parameters

    def readable(self, index: int) -> int:
        """`index`, or the float32 copy of it when it is a float16 constant."""
        s = schema()
        if index < 0 or self.graph.tensors[index].type != s.TensorType.FLOAT16:
            return index
        if index not in self.dense:
            half = self.graph.tensors[index]
            full = s.TensorT()
            full.name, full.type, full.shape, full.hasRank = (
                half.name + ".float32",
                s.TensorType.FLOAT32,
                half.shape,
                True,
            )
            self.dense[index] = self.append(full)
            self.emit("DEQUANTIZE", [index], [self.dense[index]])
        return self.dense[index]

    def shifts(self, index: int) -> Stored | None:
        """What is added to the blocks of the matrix that tensor `index` stands for, if anything is."""
        return self.constants.weights[self.names[index]].shifts if index in self.names else None

    def linear(self, call: Any) -> None:
        group = next((one for one in self.groups if any(call is member for member in one.calls)), None)
        if group is None:
            x, weight, bias = [*call.inputs, -1][:3]
            self.multiply(x, weight, bias, call.outputs[0], self.shifts(weight))
        elif call is group.calls[0]:
            self.multiply_together(call.inputs[0], group)

    def multiply_together(self, x: int, group: Group) -> None:
        """One layer with the rows of all, and its result in parts."""
        parts = [self.constants.weights[name] for name in group.weights]
        outputs = [one.outputs[0] for one in group.calls]
        whole = self.like(outputs[0], sum(part.shape[0] for part in parts))
        bias = self.readable(self.together(group.biases)) if group.biases else -1
        self.multiply(x, self.together(group.weights), bias, whole, joined(parts).shifts)
        begin = [0] * len(self.shape(whole))
        for output in outputs:
            sizes = self.shape(output)
            given = [whole, self.integers(begin), self.integers(sizes)]
            self.emit("SLICE", given, [output], schema().SliceOptionsT())
            begin = [*begin[:-1], begin[-1] + sizes[-1]]

    def together(self, names: Sequence[str]) -> int:
        """The constant of all of these, one behind the other."""
        weights = self.constants.weights
        return self.added(joined_name(names, weights), joined([weights[name] for name in names]))

    def multiply(self, x: int, weight: int, bias: int, output: int, shifts: Stored | None) -> None:
        """A linear layer, and what is added to the blocks of its matrix."""
        if shifts is None:
            self.connect(x, weight, bias, output)
            return
        outputs, blocks = shifts.shape
        inputs = self.shape(x)[-1]
        if (x, blocks) not in self.sums:
            self.sums[x, blocks] = self.like(x, blocks)
            ones = self.added(f"{SUMS_PREFIX}{blocks}x{inputs}", block_ones(inputs, blocks))
            self.connect(x, ones, -1, self.sums[x, blocks])
        main, side = self.like(x, outputs), self.like(x, outputs)
        self.connect(x, weight, bias, main)
        self.connect(
            self.sums[x, blocks], self.added(self.graph.tensors[weight].name + SHIFTS_SUFFIX, shifts), -1, side
        )
        self.emit("ADD", [main, side], [output], schema().AddOptionsT())

    def connect(self, x: int, weight: int, bias: int, output: int) -> None:
        """A fully connected layer that rounds its input."""
        options = schema().FullyConnectedOptionsT()
        options.keepNumDims, options.asymmetricQuantizeInputs = True, True
        # 12 is the first version with a scale per channel: older runtimes compute nonsense if they are not told
        version = 12 if self.graph.tensors[weight].quantization is not None else 5
        self.emit("FULLY_CONNECTED", [x, weight, bias], [output], options, version)

    def added(self, name: str, weight: Stored) -> int:
        """A constant of this subgraph that is no parameter of the model; stored once in the file."""
        if name not in self.extra:
            tensor = schema().TensorT()
            self.extra[name] = self.append(tensor)
            tensor.shape, tensor.hasRank = list(weight.shape), True
            self.store(tensor, name, weight)
        return self.extra[name]

    def lookup(self, call: Any) -> None:
        ids, table = call.inputs
        if (outside := self.table_named(self.names.get(table, ""))) is not None:
            look_up_rows(self, outside, ids, table, call.outputs[0])
            return
        shifts = self.shifts(table)
        if shifts is None:
            self.look_up(ids, table, call.outputs[0])
            return
        width, blocks = self.shape(table)[1], shifts.shape[1]
        rows = self.like(call.outputs[0], width)
        self.look_up(ids, table, rows)
        moved = self.like(rows, blocks)
        self.look_up(ids, self.added(self.names[table] + SHIFTS_SUFFIX, shifts), moved)
        count = int(self.graph.tensors[rows].shape[0])
        apart = self.shaped(rows, [count, blocks, width // blocks])
        total = self.like_shape([count, blocks, width // blocks])
        self.emit("ADD", [apart, self.shaped(moved, [count, blocks, 1])], [total], schema().AddOptionsT())
        self.reshape(total, call.outputs[0])

    def look_up(self, ids: int, table: int, output: int) -> None:
        """Rows of a table, widened to float32."""
        version = 3 if self.graph.tensors[table].quantization is not None else 1
        self.emit("EMBEDDING_LOOKUP", [ids, table], [output], version=version)

    def matmul(self, call: Any) -> None:
        options = schema().BatchMatMulOptionsT()
        options.adjY = True
        self.emit("BATCH_MATMUL", list(call.inputs), list(call.outputs), options)

    def gelu(self, call: Any) -> None:
        self.emit("GELU", list(call.inputs), list(call.outputs), schema().GeluOptionsT())

    def write(self, call: Any) -> None:
        self.emit("DYNAMIC_UPDATE_SLICE", list(call.inputs), list(call.outputs))

    def mark(self, call: Any) -> None:
        self.aliases[call.outputs[0]] = call.inputs[0]


def rewrite(model: Any, weights: Mapping[str, Stored], table: Table | None = None) -> None:
    """Turn the traced `model` into one that runs; its buffers become LazyBuffer. `table`: of per-layer inputs."""
    model.buffers = [
        LazyBuffer(0, tuple) if buffer.data is None else constant(np.asarray(buffer.data)) for buffer in model.buffers
    ]
    constants = Constants(model, weights, table)
    graphs = [
        (model.subgraphs[signature.subgraphIndex], parameters(model, signature)) for signature in model.signatureDefs
    ]
    together = groups(graphs, weights)
    for signature, (graph, names), joins in zip(model.signatureDefs, graphs, together, strict=True):
        Rewriter(model, graph, names, constants, groups=joins).run()
        given = [value for value in signature.inputs if not value.name.startswith(WEIGHT_PREFIX)]
        signature.inputs = given
        graph.inputs = [value.tensorIndex for value in given]
        for value in given:
            graph.tensors[value.tensorIndex].name = value.name
        prune_tensors(graph, signature)
    prune_opcodes(model)


def parameters(model: Any, signature: Any) -> dict[int, str]:
    """The parameters that a signature's graph reads, by tensor; its caches get the names they have outside."""
    for value in (*signature.inputs, *signature.outputs):
        value.name = text(value.name).removeprefix(CACHE_PREFIX)
    used = {index for operator in model.subgraphs[signature.subgraphIndex].operators for index in operator.inputs}
    return {
        value.tensorIndex: value.name.removeprefix(WEIGHT_PREFIX)
        for value in signature.inputs
        if value.name.startswith(WEIGHT_PREFIX) and value.tensorIndex in used
    }


def prune_tensors(graph: Any, signature: Any) -> None:
    """Drop tensors that nothing refers to, and number the rest anew."""
    used = {index for operator in graph.operators for index in (*operator.inputs, *operator.outputs) if index >= 0}
    used |= {*graph.inputs, *graph.outputs}
    used |= {graph.tensors[index].quantization.details.scales for index in used if _blockwise(graph.tensors[index])}
    order = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in sorted(used)]
    for tensor in filter(_blockwise, graph.tensors):
        tensor.quantization.details.scales = order[tensor.quantization.details.scales]
    for operator in graph.operators:
        operator.inputs = [order[index] for index in operator.inputs]
        operator.outputs = [order[index] for index in operator.outputs]
    graph.inputs = [order[index] for index in graph.inputs]
    graph.outputs = [order[index] for index in graph.outputs]
    for value in (*signature.inputs, *signature.outputs):
        value.tensorIndex = order[value.tensorIndex]


def _blockwise(tensor: Any) -> bool:
    return getattr(getattr(tensor.quantization, "details", None), "scales", None) is not None


def prune_opcodes(model: Any) -> None:
    """Drop operator codes that no operator uses any more."""
    used = sorted({operator.opcodeIndex for graph in model.subgraphs for operator in graph.operators})
    order = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for graph in model.subgraphs:
        for operator in graph.operators:
            operator.opcodeIndex = order[operator.opcodeIndex]
