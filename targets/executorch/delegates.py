"""Segment → XNNPACK delegate: the operators one by one, and the constants under names of their own.

ExecuTorch's own lowering retraces a program dozens of times, for minutes of Python over thirty equal layers, to arrive
at this graph. Segments hold only operators that XNNPACK has one to one, so the graph is written directly, in the same
schema, and serialized by ExecuTorch. A test holds the results against those of the ordinary lowering.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .constants import Pack, constant, joined, parts_of, raw, unchanged
from .fuse import AND
from .graph import Tensors, aten
from .modules import pack_nibbles
from .segments import Segment

IN_NAMED_DATA = 2**64 - 1  # offset of constants that lie outside the payload
NO_VALUE = 2**32 - 1
EXTERNAL_INPUT, EXTERNAL_OUTPUT = 1, 2
SCALE_PREFIX = "scale_"


@dataclass(frozen=True)
class Delegate:
    """One segment as the .pte will hold it: XNNPACK's payload, its named data, and the data key of each constant."""

    payload: bytes
    data: dict[str, Any]
    keys: dict[str, str]


def largest(dim: Any, max_tokens: int) -> int:
    """A size, its symbols taken at their largest."""
    if isinstance(dim, int):
        return dim
    expression = dim.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, max_tokens)))


class Writer:
    """Builds the XNNGraph of one segment."""

    def __init__(self, segment: Segment, tensors: Tensors, max_tokens: int) -> None:
        from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema

        self.schema = schema
        self.segment, self.tensors, self.max_tokens = segment, tensors, max_tokens
        externs = len(segment.inputs) + len(segment.outputs)
        empty = schema.ConstantDataOffset(0, 0)  # index 0 means: not a constant
        self.graph = schema.XNNGraph("0", [], [], externs, [], [], [empty])
        self.values: dict[fx.Node, int] = {}
        self.data: dict[str, Any] = {}
        self.keys: dict[str, str] = {}

    def write(self) -> Delegate:
        """The whole segment."""
        from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import serialize_xnnpack_binary

        for index, node in enumerate(self.segment.inputs):
            self.values[node] = self.tensor(self.shape(node), external=(index, EXTERNAL_INPUT))
            self.graph.input_ids.append(self.values[node])
        for node in self.segment.nodes:
            self.operator(node)
        return Delegate(serialize_xnnpack_binary(self.graph, bytearray()), self.data, self.keys)

    def shape(self, node: fx.Node) -> list[int]:
        """The largest shape of a value; XNNPACK has no rank 0."""
        return [largest(dim, self.max_tokens) for dim in node.meta["val"].shape] or [1]

    def tensor(
        self,
        shape: Sequence[int],
        kind: str = "fp32",
        *,
        constant: int = 0,
        external: tuple[int, int] | None = None,
        params: Any = None,
    ) -> int:
        """Declare a value; its id. `external` is the position among the delegate's arguments, and in or out."""
        schema, index = self.schema, len(self.graph.xvalues)
        place, flag = external or (NO_VALUE, 0)
        datatype = getattr(schema.XNNDatatype, f"xnn_datatype_{kind}")
        value: Any = schema.XNNTensorValue(datatype, len(shape), list(shape), constant, place, flag, index)
        if params is not None:
            value = schema.XNNQuantizedTensorValue(value, params)
        self.graph.xvalues.append(schema.XValue(value))
        return index

    def output(self, node: fx.Node, kind: str = "fp32", params: Any = None) -> int:
        """Declare what a node computes."""
        external = None
        if node in self.segment.outputs:
            external = (len(self.segment.inputs) + self.segment.outputs.index(node), EXTERNAL_OUTPUT)
        self.values[node] = self.tensor(self.shape(node), kind, external=external, params=params)
        if external:
            self.graph.output_ids.append(self.values[node])
        return self.values[node]

    def store(self, packed: Any, key: str) -> int:
        """Put what `constant` made under a key into the named data; its index."""
        self.data[key] = packed
        self.graph.constant_data.append(self.schema.ConstantDataOffset(IN_NAMED_DATA, len(packed), key))
        return len(self.graph.constant_data) - 1

    def value(self, item: Any) -> int:
        """The id of an operand: a computed value, a constant, or a number."""
        if not isinstance(item, fx.Node):
            packed = raw(torch.tensor([float(item)])).tobytes()
            return self.tensor([1], constant=self.store(packed, hashlib.sha256(packed).hexdigest()))
        if item not in self.values:
            tensor, name = self.tensors[str(item.target)], str(item.target)
            kind = "fp16" if tensor.dtype == torch.float16 else "fp32"  # XNNPACK widens it when it packs
            self.values[item] = self.tensor(
                self.shape(item), kind, constant=self.named(name, stored(name, self.tensors))
            )
        return self.values[item]

    def named(self, name: str, packed: Any, prefix: str = "") -> int:
        """Store the constant called `name`."""
        self.keys[name] = prefix + data_key(name, packed, self.tensors)
        return self.store(packed, self.keys[name])

    def append(self, operation: Any) -> None:
        """Add an operator."""
        self.graph.xnodes.append(self.schema.XNode(operation, 0))

    def operator(self, node: fx.Node) -> None:
        """Write one node of the segment."""
        name = str(node.target)
        if name.startswith("quantized_decomposed."):
            self.quantizer(name.removeprefix("quantized_decomposed."), node)
        elif node.target in SPECIAL:
            SPECIAL[node.target](self, node)
        elif node.target in BINARY:
            first, second = (self.value(item) for item in node.args[:2])
            self.append(getattr(self.schema, BINARY[node.target])(first, second, self.output(node), 0))
        elif node.target in UNARY:
            source = self.value(node.args[0])
            self.append(getattr(self.schema, UNARY[node.target])(source, self.output(node), 0))

    def quantizer(self, name: str, node: fx.Node) -> None:
        """Rounding of activations, and the stored form of weights."""
        if name.startswith("quantize_per_token"):
            source = self.value(node.args[0])
            params = self.schema.PerTokenDynamicQuant(num_nonbatch_dims=1)
            self.append(self.schema.XNNConvert(source, self.output(node, "qdint8", params), 0))
        elif name.startswith("dequantize_per_token"):
            self.values[node] = self.value(node.args[0])
        elif name.startswith("dequantize_per_channel"):
            self.values[node] = self.weight(node, grouped="group" in name)

    def weight(self, node: fx.Node, *, grouped: bool) -> int:
        """Integer codes and their scales: int8 by row, or int4 by group with bfloat16 scales."""
        args: Any = node.args
        codes_name, scales_name = str(args[0].target), str(args[1].target)
        codes, scales = self.tensors[codes_name], self.tensors[scales_name]
        place = self.named(codes_name, stored(codes_name, self.tensors, pack_nibbles if grouped else unchanged))
        held = stored(scales_name, self.tensors, halved if grouped else unchanged)
        index = self.named(scales_name, held, SCALE_PREFIX)
        counted = {"scale": [], "channel_dim": 0, "scale_buffer_idx": index, "num_scales": scales.numel()}
        if grouped:
            params = self.schema.PerChannelGroupQuant(group_size=codes.shape[1] // scales.shape[1], **counted)
            return self.tensor(codes.shape, "qbint4", constant=place, params=params)
        return self.tensor(codes.shape, "qcint8", constant=place, params=self.schema.PerChannelQuant(**counted))

    def linear(self, node: fx.Node) -> None:
        """A fully connected layer."""
        source, weight = (self.value(item) for item in node.args[:2])
        bias = self.value(node.args[2]) if len(node.args) > 2 and node.args[2] is not None else NO_VALUE
        self.append(self.schema.XNNFullyConnected(source, weight, bias, self.output(node), 0))

    def view(self, node: fx.Node) -> None:
        """A reshape; XNNPACK writes the inferred size as 0."""
        args: Any = node.args
        shape = [0 if dim == -1 else dim for dim in args[1]]
        source = self.value(args[0])
        self.append(self.schema.XNNStaticReshape(len(shape), shape, source, self.output(node), 0))

    def slice(self, node: fx.Node) -> None:
        """A part of the last axis; XNNPACK writes "all there is" of the others as 0."""
        args: Any = node.args
        shape = self.shape(node)
        offsets, sizes = [0] * len(shape), [0] * len(shape)
        offsets[-1], sizes[-1] = args[2], shape[-1]
        source = self.value(args[0])
        self.append(self.schema.XNNStaticSlice(len(shape), offsets, sizes, source, self.output(node), 0))

    def transpose(self, node: fx.Node) -> None:
        """A transpose of two axes."""
        order = list(range(node.meta["val"].dim()))
        args: Any = node.args
        first, second = args[1:3]
        order[first], order[second] = order[second], order[first]
        source = self.value(node.args[0])
        self.append(self.schema.XNNStaticTranspose(len(order), order, source, self.output(node), 0))

    def silu(self, node: fx.Node) -> None:
        """x · sigmoid(x)."""
        source = self.value(node.args[0])
        gate = self.tensor(self.shape(node))
        self.append(self.schema.XNNSigmoid(source, gate, 0))
        self.append(self.schema.XNNMultiply(source, gate, self.output(node), 0))

    def gelu(self, node: fx.Node) -> None:
        """GELU: XNNPACK's own is the exact one; its approximation by tanh is spelled out.

        ExecuTorch's ordinary lowering takes the exact one for both, which is the error of 2e-5 to 2e-4 that exports of
        the Gemma family have there.
        """
        source = self.value(node.args[0])
        if node.kwargs.get("approximate", "none") == "none":
            self.append(self.schema.XNNGelu(source, self.output(node), 0))
            return
        schema, shape = self.schema, self.shape(node)

        def step(operation: Any, *operands: int) -> int:
            result = self.tensor(shape)
            self.append(operation(*operands, result, 0))
            return result

        cubic = step(schema.XNNMultiply, step(schema.XNNSquare, source), self.value(0.044715))
        inner = step(schema.XNNMultiply, source, step(schema.XNNAdd, cubic, self.value(1.0)))
        gate = step(schema.XNNTanh, step(schema.XNNMultiply, inner, self.value(math.sqrt(2.0 / math.pi))))
        half = step(schema.XNNMultiply, source, self.value(0.5))
        self.append(schema.XNNMultiply(half, step(schema.XNNAdd, gate, self.value(1.0)), self.output(node), 0))


SPECIAL: dict[Any, Callable[[Writer, fx.Node], None]] = {
    aten.linear.default: Writer.linear,
    aten.view.default: Writer.view,
    aten.slice.Tensor: Writer.slice,
    aten.transpose.int: Writer.transpose,
    aten.silu.default: Writer.silu,
    aten.gelu.default: Writer.gelu,
}
BINARY = {
    aten.matmul.default: "XNNBatchMatrixMultiply",
    aten.add.Tensor: "XNNAdd",
    aten.mul.Tensor: "XNNMultiply",
    aten.sub.Tensor: "XNNSubtract",
    aten.div.Tensor: "XNNDiv",
}
UNARY = {
    aten.softmax.int: "XNNSoftmax",  # delegable only over the last axis
    aten.neg.default: "XNNNegate",
    aten.rsqrt.default: "XNNReciprocalSquareRoot",
    aten.sqrt.default: "XNNSquareRoot",
    aten.pow.Tensor_Scalar: "XNNSquare",  # delegable only when the exponent is 2
    aten.sigmoid.default: "XNNSigmoid",
    aten.tanh.default: "XNNTanh",
    aten.exp.default: "XNNExp",
}


def halved(scales: torch.Tensor) -> torch.Tensor:
    """Scales as XNNPACK holds those of blocks: bfloat16, which they are exact in."""
    return scales.to(torch.bfloat16)


def stored(name: str, tensors: Tensors, pack: Pack = unchanged) -> Any:
    """What a .pte shall hold of the constant called `name`, which may be several, one behind the other."""
    parts = [constant(tensors[part], pack) for part in name.split(AND)]
    return parts[0] if len(parts) == 1 else joined(parts)


def data_key(name: str, packed: Any, tensors: Tensors) -> str:
    """64 hexadecimal digits that stand for one constant of one model.

    The runtime shares packed weights between models by name: scales are hashed in, so that equal codes with other
    scales never meet.
    """
    digest = hashlib.sha256(name.encode() + b"\0")
    for part in parts_of(packed):
        digest.update(part)
    scales = name.replace(".weight", ".scales")
    if scales != name and scales in tensors:
        for part in parts_of(stored(scales, tensors)):
            digest.update(part)
    return digest.hexdigest()
