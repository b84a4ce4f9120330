"""Which parts of the graph XNNPACK takes: maximal runs of delegable operators between those it does not have."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .graph import Flat, aten

VIEW = aten.view.default
_, ROUND, EXPAND, STORED = QUANTIZERS = tuple(
    f"quantized_decomposed.{name}"
    for name in ("choose_qparams_per_token", "quantize_per_token", "dequantize_per_token", "dequantize_per_channel")
)
PLAIN = (
    aten.linear.default, aten.mul.Tensor, aten.div.Tensor, aten.neg.default, aten.rsqrt.default, aten.sqrt.default,
    aten.sigmoid.default, aten.silu.default, aten.tanh.default, aten.exp.default, aten.transpose.int,
    aten.gelu.default,
)  # fmt: skip
WITHOUT_OPTIONS = (aten.add.Tensor, aten.sub.Tensor)
SPELLED_ATTENTION = (aten.matmul.default, aten.softmax.int)
"""Taken too where nobody else computes attention: decoders have a fused operator over their cache."""


@dataclass(frozen=True)
class Segment:
    """A part of the graph: its nodes in order, what it reads, which constants it holds, and what others read of it."""

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    constants: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


def is_delegable(node: fx.Node, also: tuple[Any, ...] = ()) -> bool:
    """Whether `delegates` can write this operator, for float32 tensors; of SPELLED_ATTENTION those in `also`."""
    args: Any = node.args
    if node.target is operator.getitem:
        return is_delegable(args[0], also)
    if node.op != "call_function" or str(node.target).startswith(QUANTIZERS):
        return node.op == "call_function" and rounds_in_place(node)
    if not is_float(node.meta["val"]):
        return False
    if node.target == aten.pow.Tensor_Scalar:
        return bool(args[1] == 2)
    if node.target in SHAPES:
        return SHAPES[node.target](node)
    plain = node.target in PLAIN or (node.target in WITHOUT_OPTIONS and not node.kwargs)
    return plain or (node.target in also and is_spelled_attention(node))


def is_part_of_rows(node: fx.Node) -> bool:
    """Whether a slice takes neighbours of the last axis."""
    args: Any = node.args
    last = node.meta["val"].dim() - 1
    return len(args) == 4 and args[1] in (-1, last) and isinstance(args[2], int) and args[2] >= 0


def has_fixed_shape(node: fx.Node) -> bool:
    """Whether a view's sizes are numbers."""
    args: Any = node.args
    return all(isinstance(dim, int) for dim in args[1])


SHAPES: Mapping[Any, Callable[[fx.Node], bool]] = {aten.slice.Tensor: is_part_of_rows, VIEW: has_fixed_shape}


def rounds_in_place(node: fx.Node) -> bool:
    """Whether a quantizer belongs to a linear layer: XNNPACK has none for what goes into the KV cache or comes out."""
    name = str(node.target)
    if name.startswith(STORED):
        return True
    if name.startswith(EXPAND):
        source: Any = node.args[0]
        return str(source.target).startswith(ROUND)
    users = [user for user in node.users if user.target is not operator.getitem]
    users += [user for item in node.users if item.target is operator.getitem for user in item.users]
    return all(str(user.target).startswith(QUANTIZERS) and rounds_in_place(user) for user in users)


def is_float(value: Any) -> bool:
    """Whether a value is one float32 tensor."""
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32


def is_spelled_attention(node: fx.Node) -> bool:
    """Whether this is a product of equally many matrices on both sides, or a softmax over the last axis."""
    args: Any = node.args
    if node.target == aten.softmax.int:
        return bool(args[1] in (-1, node.meta["val"].dim() - 1))
    first, second = (list(item.meta["val"].shape) for item in args[:2])
    return len(first) == len(second) >= 3 and first[:-2] == second[:-2]


@dataclass(frozen=True)
class Step:
    """Operators that run on the host, and then, perhaps, a delegate."""

    host: tuple[fx.Node, ...]
    segment: Segment | None


def split(flat: Flat, also: tuple[Any, ...] = ()) -> list[Step]:
    """The program as steps in running order; `also` as `is_delegable` takes it.

    A node's level counts the crossings between host and delegate on the way to it, so a level is never read by an
    earlier one, and the delegable nodes of one level form a segment without cycles.
    """
    constant: set[fx.Node] = set()
    states = written_buffers(flat)  # not constant, whatever they look like
    levels: dict[fx.Node, int] = dict.fromkeys(states, 0)
    on_host: dict[fx.Node, bool] = dict.fromkeys(states, True)
    custom_level = 0
    for node in flat.graph.nodes:
        if node in states:
            continue
        sources = node.all_input_nodes
        if node.op == "get_attr" or (
            is_delegable(node, also) and sources and all(item in constant for item in sources)
        ):
            constant.add(node)
            continue
        moving = [item for item in sources if item not in constant]
        host = not is_delegable(node, also) or any(item in states for item in moving)
        host = host or (node.target == VIEW and all(on_host[item] for item in moving))
        on_host[node] = host
        levels[node] = max((levels[item] + (on_host[item] != host) for item in moving), default=0)
        if str(node.target).startswith("llama."):  # these read and write the cache: their order must stay
            levels[node] = custom_level = max(custom_level, levels[node])
            levels.update({item: levels[node] for item in moving if item in states})
    steps = []
    for level in sorted(set(levels.values())):
        here = [node for node in levels if levels[node] == level and node.op == "call_function"]
        inside = [node for node in here if not on_host[node]]
        host_nodes = tuple(node for node in here if on_host[node])
        steps.append(Step(host_nodes, close(inside, constant) if inside else None))
    return steps


def written_buffers(flat: Flat) -> set[fx.Node]:
    """References to buffers that the program writes."""
    writers = [node for node in flat.graph.nodes if str(node.target).startswith("llama.update_cache")]
    return {item for node in writers for item in node.all_input_nodes if item.op == "get_attr"}


def close(nodes: list[fx.Node], constant: set[fx.Node]) -> Segment:
    """A segment of these nodes, with the constant expressions they need pulled in."""
    inside: dict[fx.Node, None] = {}
    inputs: dict[fx.Node, None] = {}
    constants: dict[fx.Node, None] = {}
    members = set(nodes)

    def pull(node: fx.Node) -> None:
        for item in node.all_input_nodes:
            if item.op == "get_attr":
                constants[item] = None
            elif item in constant:
                pull(item)
            elif item not in members:
                inputs[item] = None
        inside[node] = None

    for node in nodes:
        pull(node)
    outputs = tuple(node for node in nodes if any(user not in members for user in node.users))
    return Segment(tuple(inside), tuple(inputs), tuple(constants), outputs)
