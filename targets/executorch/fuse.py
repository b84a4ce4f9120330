"""Linear layers that read the same input become one.

Every fully connected layer wakes the threads of the runtime, which at decode takes longer than the small ones compute:
one matrix with the rows of q, k and v, and one with those of gate and up, and likewise of the layers of shifts beside
them. Each row is multiplied as before, so the values stay the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .graph import OWN_PREFIX, Flat, aten, is_impure

AND = "|"
"""Between the names of the constants whose rows are stored one after the other."""
DEQUANTIZE = "quantized_decomposed.dequantize_per_channel"


@dataclass(frozen=True)
class Member:
    """A linear layer, its stored weight, and what is added to its result by a layer of shifts."""

    linear: fx.Node
    stored: fx.Node
    added: fx.Node | None
    side: fx.Node | None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What layers must have in common to be stored as one."""
        args: Any = self.stored.args
        bias = len(self.linear.args) > 2 and self.linear.args[2] is not None
        sums = None if self.side is None else self.side.args[0]
        return (self.stored.target, *args[3:], bias, sums)

    @property
    def result(self) -> fx.Node:
        """What others read."""
        return self.linear if self.added is None else self.added


def fuse_linears(flat: Flat) -> None:
    """Do it wherever the layers differ in nothing but their rows."""
    for source in list(flat.graph.nodes):
        kinds: dict[tuple[Any, ...], list[Member]] = {}
        for member in members(source):
            kinds.setdefault(member.kind, []).append(member)
        for alike in kinds.values():
            if len(alike) > 1:
                fuse(flat, alike)
    flat.graph.eliminate_dead_code(is_impure)


def members(source: fx.Node) -> Iterator[Member]:
    """The layers of stored codes that read `source`, with those of shifts that belong to them."""
    for node in source.users:
        if not is_stored_linear(node) or node.args[0] is not source:
            continue
        stored: Any = node.args[1]
        if str(stored.args[0].target).startswith(OWN_PREFIX) or ".side." in str(stored.args[0].target):
            continue
        added = next(iter(node.users)) if len(node.users) == 1 else None
        if added is not None and added.target == aten.add.Tensor and added.args[0] is node and is_side(added.args[1]):
            side: Any = added.args[1]
            yield Member(node, stored, added, side)
        else:
            yield Member(node, stored, None, None)


def is_stored_linear(node: Any) -> bool:
    """Whether this is a linear layer whose weight is dequantized from codes."""
    if not isinstance(node, fx.Node) or node.target != aten.linear.default:
        return False
    weight: Any = node.args[1]
    return str(weight.target).startswith(DEQUANTIZE) and weight.args[0].op == "get_attr"


def is_side(node: Any) -> bool:
    """Whether this is a layer of shifts, read by one sum only."""
    if not is_stored_linear(node) or len(node.users) != 1:
        return False
    return ".side." in str(node.args[1].args[0].target)


def fuse(flat: Flat, alike: list[Member]) -> None:
    """Replace the layers by one and parts of its result."""
    order = {node: index for index, node in enumerate(flat.graph.nodes)}
    alike = sorted(alike, key=lambda one: order[one.linear])
    whole = joined(flat, [one.linear for one in alike])
    if alike[0].added is not None:
        beside = joined(flat, [one.side for one in alike if one.side])
        place = min((one.added for one in alike if one.added), key=lambda node: order[node])
        whole = flat.insert(place, aten.add.Tensor, (whole, beside))
    else:
        place = min((reader for one in alike for reader in one.linear.users), key=lambda node: order[node])
    axis, begin = whole.meta["val"].dim() - 1, 0
    for one in alike:
        end = begin + int(one.linear.meta["val"].shape[-1])
        one.result.replace_all_uses_with(flat.insert(place, aten.slice.Tensor, (whole, axis, begin, end)))
        begin = end


def joined(flat: Flat, linears: list[fx.Node]) -> fx.Node:
    """One linear layer with the rows of all, at the place of the first."""
    stored: list[Any] = [node.args[1] for node in linears]
    constants = [stack(flat, [str(one.args[index].target) for one in stored]) for index in range(3)]
    weight = flat.insert(linears[0], stored[0].target, (*constants, *stored[0].args[3:]))
    args: tuple[Any, ...] = (linears[0].args[0], weight)
    biases: list[Any] = [node.args[2] for node in linears if len(node.args) > 2 and node.args[2] is not None]
    if biases:
        args = (*args, stack(flat, [str(bias.target) for bias in biases]))
    with flat.graph.inserting_before(linears[0]):
        node = flat.graph.call_function(aten.linear.default, args)
    value = linears[0].meta["val"]
    with flat.fake_mode:
        node.meta["val"] = value.new_empty((*value.shape[:-1], weight.meta["val"].shape[0]))
    return node


def stack(flat: Flat, names: list[str]) -> fx.Node:
    """A reference to the constants of these names as one, their rows one behind the other.

    Of its values there is only the shape: whoever writes them takes them from the constants that it is made of.
    """
    parts = [flat.tensors[name] for name in names]
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    return flat.constant(AND.join(names), lambda: torch.empty(shape, dtype=parts[0].dtype, device="meta"))
