"""Rows of a per-layer table, looked up and unpacked inside the graph.

The table is one constant of bytes, the very bytes of the table file: what a token needs of it lies on one or two pages
of the mapped model, and nothing else of it is ever read. The operators that unpack are plain ones that no delegate
takes, so that none copies the table.

Shape legend: T tokens of a call, V rows, L layers, D values of a layer, R bytes of a layer's record.
"""

from __future__ import annotations

import numpy as np
from kobako.pipeline.embeddings import Table
from kobako.pipeline.pieces import file_pieces

from .flatbuffer import schema
from .subgraph import Subgraph

ROWS_SUFFIX = ".rows"
"""Behind the parameter's name: the constant holds rows as `kobako.pipeline.embeddings.layout` says, not values."""


def fill_rows(graph: Subgraph, index: int, table: Table) -> None:
    """Make tensor `index` the constant of a table's rows, which go from file to file."""
    layout, tensor = table.layout, graph.graph.tensors[index]
    tensor.name, tensor.type = layout.parameter + ROWS_SUFFIX, schema().TensorType.INT8
    tensor.shape = [layout.rows, layout.row_bytes]
    tensor.buffer = graph.constants.buffer(
        tensor.name, layout.data_bytes, lambda: file_pieces(table.path, table.begin, layout.data_bytes)
    )


def look_up_rows(graph: Subgraph, table: Table, ids: int, rows: int, output: int) -> None:
    """Float32 values ``[T, L·D]`` into tensor `output`, of token ids ``[T]`` and the constant `rows`."""
    s, layout = schema(), table.layout
    tokens, layers = int(graph.graph.tensors[output].shape[0]), layout.layers
    options = s.GatherOptionsT()
    options.axis = 0
    found = graph.like_shape([tokens, layout.row_bytes], s.TensorType.INT8)
    graph.emit("GATHER", [rows, ids], [found], options)
    if layout.bits == 16:
        _from_float16(graph, graph.shaped(found, [tokens, layers * layout.width, 2]), output)
        return
    records = graph.shaped(found, [tokens, layers, layout.record_bytes])
    codes = _cast(graph, _part(graph, records, 0, layout.code_bytes))
    values = codes if layout.bits == 8 else _halves(graph, codes)
    scales = _scales(graph, _part(graph, records, layout.code_bytes, layout.record_bytes))
    scaled = graph.like_shape([tokens, layers, layout.width])
    graph.emit("MUL", [values, scales], [scaled], s.MulOptionsT())
    graph.reshape(scaled, output)


def _from_float16(graph: Subgraph, pairs: int, output: int) -> None:
    """Float32 of byte pairs ``[T, L·D, 2]``."""
    s = schema()
    halves = graph.like_shape(graph.shape(pairs)[:-1], s.TensorType.FLOAT16)
    graph.emit("BITCAST", [pairs], [halves])
    graph.emit("CAST", [halves], [output])


def _part(graph: Subgraph, records: int, begin: int, end: int) -> int:
    """Bytes `begin` to `end` of each record ``[T, L, R]``."""
    s = schema()
    tokens, layers, _ = graph.shape(records)
    starts = graph.integers([0, 0, begin])
    sizes = graph.integers([tokens, layers, end - begin])
    part = graph.like_shape([tokens, layers, end - begin], s.TensorType.INT8)
    graph.emit("SLICE", [records, starts, sizes], [part], s.SliceOptionsT())
    return part


def _cast(graph: Subgraph, index: int) -> int:
    result = graph.like_shape(graph.shape(index))
    graph.emit("CAST", [index], [result], schema().CastOptionsT())
    return result


def _halves(graph: Subgraph, packed: int) -> int:
    """Codes ``[T, L, D]`` of bytes ``[T, L, D/2]`` that hold two each, all as float32: the low half comes first."""
    s = schema()
    tokens, layers, count = graph.shape(packed)
    high = _step_down(graph, packed, 16.0)
    low = _minus_multiple(graph, packed, high, 16.0)  # 0…15
    low = _minus_multiple(graph, low, _step_down(graph, low, 8.0), 16.0)  # 8…15 stand for −8…−1
    both = graph.like_shape([tokens, layers, count, 2])
    options = s.ConcatenationOptionsT()
    options.axis = 3
    pair = [graph.shaped(half, [tokens, layers, count, 1]) for half in (low, high)]
    graph.emit("CONCATENATION", pair, [both], options)
    return graph.shaped(both, [tokens, layers, 2 * count])


def _step_down(graph: Subgraph, index: int, step: float) -> int:
    """floor(x / step)."""
    s, shape = schema(), graph.shape(index)
    divided, floored = graph.like_shape(shape), graph.like_shape(shape)
    graph.emit("MUL", [index, graph.number(1.0 / step)], [divided], s.MulOptionsT())
    graph.emit("FLOOR", [divided], [floored])
    return floored


def _minus_multiple(graph: Subgraph, index: int, multiple: int, factor: float) -> int:
    """x − factor · multiple."""
    s, shape = schema(), graph.shape(index)
    product, difference = graph.like_shape(shape), graph.like_shape(shape)
    graph.emit("MUL", [multiple, graph.number(factor)], [product], s.MulOptionsT())
    graph.emit("SUB", [index, product], [difference], s.SubOptionsT())
    return difference


def _scales(graph: Subgraph, halves: int) -> int:
    """Float32 ``[T, L, 1]`` of bfloat16 bytes ``[T, L, 2]``: they are the upper half of a float32."""
    s = schema()
    tokens, layers, _ = graph.shape(halves)
    lower = graph.constant_tensor(f"kobako.zeros_{tokens}x{layers}x2", np.zeros((tokens, layers, 2), np.int8))
    words = graph.like_shape([tokens, layers, 4], s.TensorType.INT8)
    options = s.ConcatenationOptionsT()
    options.axis = 2
    graph.emit("CONCATENATION", [lower, halves], [words], options)
    scales = graph.like_shape([tokens, layers])
    graph.emit("BITCAST", [words], [scales])
    return graph.shaped(scales, [tokens, layers, 1])
