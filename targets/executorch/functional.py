"""A traced graph without operators that write into their arguments, so that any of its values may be moved or dropped.

Modeling code adds to tensors in place (``x += y``, ``x[1:] += y``). What is written becomes a value of its own, and
whoever reads the tensor later reads that. Writes to the KV cache stay: they are its purpose.
"""

from __future__ import annotations

from typing import Any

import torch
from kobako.pipeline.errors import UnsupportedModel
from torch import fx

from .graph import Flat, aten

OUT_OF_PLACE = {
    aten.add_.Tensor: aten.add.Tensor,
    aten.sub_.Tensor: aten.sub.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.div_.Tensor: aten.div.Tensor,
}
VIEWS = (
    aten.slice.Tensor, aten.select.int, aten.view.default, aten.permute.default, aten.transpose.int,
    aten.unsqueeze.default, aten.reshape.default, aten.alias.default,
)  # fmt: skip
NAMED = {aten.multiply.Tensor: aten.mul.Tensor}
"""Second names of operators."""


def functionalize(flat: Flat) -> None:
    """Replace every write in place. Raises UnsupportedModel for one whose other readers cannot be told."""
    for node in list(flat.graph.nodes):
        if node.target in NAMED:
            node.target = NAMED[node.target]
        if node.target in OUT_OF_PLACE:
            _written(flat, node, flat.insert(node, OUT_OF_PLACE[node.target], node.args))
        elif node.target == aten.copy_.default:
            _written(flat, node, _source(node))
        elif node.op == "call_function" and _writes(node):
            raise UnsupportedModel(f"the model writes into a tensor with {node.target}.", "Try another model.")


def _writes(node: fx.Node) -> bool:
    name = str(node.target)
    return name.startswith("aten.") and name.split(".")[1].endswith("_") and not name.split(".")[1].endswith("__")


def _source(node: fx.Node) -> fx.Node:
    source: Any = node.args[1]
    if source.meta["val"].shape != node.meta["val"].shape:
        raise UnsupportedModel("the model copies a tensor into one of another shape.", "Try another model.")
    return source


def _written(flat: Flat, node: fx.Node, value: fx.Node) -> None:
    """`node` has written `value` into its first argument: later readers of that get it."""
    target: Any = node.args[0]
    if target.target == aten.slice.Tensor:
        whole = _spliced(flat, node, target, value)
        _replace_after(flat, node, target.args[0], whole)
    elif target.target in VIEWS and _later_readers(flat, node, target.args[0]):
        raise UnsupportedModel(f"the model writes into a {target.target} that is read otherwise.", "Try another model.")
    _replace_after(flat, node, target, value)
    node.replace_all_uses_with(value)
    flat.graph.erase_node(node)


def _spliced(flat: Flat, before: fx.Node, part: fx.Node, value: fx.Node) -> fx.Node:
    """The whole that `part` is a slice of, with `value` in its place."""
    args: Any = part.args
    whole, axis, begin = args[0], args[1] if len(args) > 1 else 0, args[2] if len(args) > 2 else 0
    size = whole.meta["val"].shape[axis]
    end = min(args[3], size) if len(args) > 3 else size
    if len(args) > 4 or not all(isinstance(number, int) and number >= 0 for number in (begin, end, size)):
        raise UnsupportedModel("the model writes into a part of a tensor that is not fixed.", "Try another model.")
    pieces = [value]
    if begin:
        pieces.insert(0, flat.insert(before, aten.slice.Tensor, (whole, axis, 0, begin)))
    if end < size:
        pieces.append(flat.insert(before, aten.slice.Tensor, (whole, axis, end, size)))
    return _concatenated(flat, before, pieces, axis)


def _concatenated(flat: Flat, before: fx.Node, pieces: list[fx.Node], axis: int) -> fx.Node:
    with flat.graph.inserting_before(before):
        node = flat.graph.call_function(aten.cat.default, (pieces, axis))
    with flat.fake_mode, torch.no_grad():
        node.meta["val"] = aten.cat.default([piece.meta["val"] for piece in pieces], axis)
    return node


def _later_readers(flat: Flat, node: fx.Node, value: fx.Node) -> list[fx.Node]:
    return [user for user in value.users if node < user]


def _replace_after(flat: Flat, node: fx.Node, old: fx.Node, new: fx.Node) -> None:
    """Let what comes after `node` read `new` instead of `old`."""
    for user in _later_readers(flat, node, old):
        user.replace_input_with(old, new)
