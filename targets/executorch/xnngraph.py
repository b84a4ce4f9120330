"""Reading an XNNPACK delegate's payload: header ``XH00`` and the FlatBuffer ``XNNGraph``.

Only what a proof needs: tensor values with their data names, dtypes and quantization, and the operators. Field slots
follow ``backends/xnnpack/serialization/schema.fbs`` of ExecuTorch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .flat import Table

XH_OFFSET = 10  # uint32: where the FlatBuffer begins
PER_CHANNEL, PER_GROUP = 1, 4
DATATYPES = {1: "float32", 2: "float16", 6: "qcint8", 8: "qcint4", 9: "qdint8", 10: "qbint4"}
OPERATORS = (  # members of the union XNodeUnion, in order
    "none", "add", "fully_connected", "softmax", "sigmoid", "transpose", "clamp", "conv2d", "div", "resize",
    "pad", "avg_pool2d", "minimum", "depthwise_conv2d", "max_pool2d", "multiply", "subtract", "floor", "convert",
    "global_avg_pool2d", "reshape", "argmax_pool2d", "sqrt", "ceiling", "hardswish", "leaky_relu", "maximum",
    "negate", "square", "elu", "abs", "prelu", "concatenate2", "concatenate3", "concatenate4", "slice", "sdpa",
    "batch_matmul", "concatenate5", "conv_transpose2d", "rsqrt", "log", "gelu", "tanh", "exp", "sin", "copy",
    "cos",
)  # fmt: skip


@dataclass(frozen=True)
class StaticTensor:
    """A constant of an XNNPACK graph: ``group_size`` is 0 for one scale per row and for floats.

    Of one that stands for several, `rows` are the first and the one behind the last of those that are meant.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    scales_key: str
    group_size: int
    rows: tuple[int, int] | None = None


def root(payload: bytes) -> Table:
    """The XNNGraph of a delegate's payload. Raises ValueError or struct.error for anything else."""
    if payload[4:8] != b"XH00":
        raise ValueError("not an XNNPACK payload")
    start = struct.unpack_from("<I", payload, XH_OFFSET)[0]
    body = payload[start:]
    return Table(body, struct.unpack_from("<I", body, 0)[0])


def operators(payload: bytes) -> list[str]:
    """Names of the operators of a delegate, in order."""
    return [OPERATORS[node.number(0, "<B")] for node in root(payload).tables(1)]


def static_tensors(payload: bytes) -> Iterator[StaticTensor]:
    """Every constant tensor of a delegate."""
    graph = root(payload)
    keys = [entry.string(2) for entry in graph.tables(8)]
    for value in graph.tables(2):
        quantized = value.number(0, "<B") == 2
        inner = value.table(1)
        tensor = inner.table(0) if quantized else inner
        data = tensor.number(3, "<I")
        if data:
            scales, group = quantization(inner) if quantized else (0, 0)
            dtype = DATATYPES.get(tensor.number(0, "<h"), "other")
            yield StaticTensor(keys[data], dtype, tensor.numbers(2), keys[scales] if scales else "", group)


def quantization(value: Table) -> tuple[int, int]:
    """Index of the scales' data and the group size of a quantized tensor value."""
    kind = value.number(1, "<B")
    params = value.table(2)
    if kind == PER_CHANNEL:
        return params.number(2, "<I"), 0
    if kind == PER_GROUP:
        return params.number(4, "<I"), params.number(2, "<i")
    return 0, 0
