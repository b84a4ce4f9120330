"""The traced program as one flat graph, and the exact rewrites that let XNNPACK take everything between attentions.

Each rewrite keeps the function computed: the mean over the last axis becomes a product with ones / n (a linear layer
that XNNPACK has, where its mean wants images), rotating half of a head becomes a signed permutation, transposes that
meet their inverse vanish, and views name their symbolic dimension -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

Tensors = dict[str, torch.Tensor]

aten = torch.ops.aten
OWN_PREFIX = "kobako."
"""Constants that the rewrites add; they are no parameters of the model."""


@dataclass
class Flat:
    """A graph whose ``get_attr`` targets are keys of `tensors` (fully qualified names)."""

    graph: fx.Graph
    tensors: Tensors

    @property
    def fake_mode(self) -> Any:
        first = next(node for node in self.graph.nodes if node.op == "placeholder")
        return first.meta["val"].fake_mode

    def insert(self, before: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
        """Insert a call before a node, its value inferred on fake tensors."""
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, args)
        values = fx.node.map_arg(args, lambda item: item.meta["val"])
        with self.fake_mode, torch.no_grad():
            node.meta["val"] = target(*values)
        return node

    def constant(self, name: str, value: Callable[[], torch.Tensor]) -> fx.Node:
        """A reference to a constant, made at its first use."""
        first = next(iter(self.graph.nodes))
        if name in self.tensors:
            return next(node for node in self.graph.nodes if node.op == "get_attr" and node.target == name)
        self.tensors[name] = value()
        with self.graph.inserting_before(first):
            node = self.graph.get_attr(name)
        with self.fake_mode:
            node.meta["val"] = torch.empty(self.tensors[name].shape, dtype=self.tensors[name].dtype)
        return node


def flatten(program: torch.export.ExportedProgram) -> Flat:
    """Copy an exported program into a graph whose parameters, buffers and constants are ``get_attr`` nodes.

    What only asserts the types of tensors is left out.
    """
    signature = program.graph_signature
    names: dict[str, str] = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values = {**program.constants, **program.state_dict}
    graph, copies = fx.Graph(), {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            copies[node] = graph.get_attr(names[node.name])
            copies[node].meta["val"] = node.meta["val"]
        elif node.target != aten._assert_tensor_metadata.default:
            copies[node] = graph.node_copy(node, lambda item: copies[item])
    return Flat(graph, {name: values[name].detach() for name in names.values()})


def simplify(flat: Flat) -> None:
    """Apply every rewrite of this module in place."""
    for rewrite in (
        drop_casts,
        fix_views,
        power_as_root,
        mean_as_linear,
        block_sum_as_linear,
        rotation_as_linear,
        sink_transposes,
        share,
    ):
        for node in list(flat.graph.nodes):
            if node.op == "call_function" and not getattr(node, "_erased", False):
                rewrite(flat, node)
        flat.graph.eliminate_dead_code(is_impure)
    flat.graph.lint()


def is_impure(node: fx.Node) -> bool:
    """What must stay although nobody reads its value."""
    if node.op in ("placeholder", "output"):
        return True
    name = str(node.target)
    return name.startswith("llama.update_cache") or name.startswith("aten._assert_scalar")


CASTS = (
    aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.type_as.default, aten.contiguous.default,
    aten.alias.default, aten.clone.default, aten.dropout.default,
)  # fmt: skip


def drop_casts(flat: Flat, node: fx.Node) -> None:
    """Remove casts that change nothing; a cast of a constant is left to the writer."""
    if node.target in CASTS:
        source: Any = node.args[0]
        same = source.meta["val"].dtype == node.meta["val"].dtype
        if same:
            node.replace_all_uses_with(source)
        elif source.op == "get_attr" and all(_casts_alike(user, node) for user in source.users):
            source.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(source)


def _casts_alike(one: fx.Node, other: fx.Node) -> bool:
    """Whether two casts make the same type: a layer that is called twice casts its weight twice."""
    return one.target in CASTS and bool(one.meta["val"].dtype == other.meta["val"].dtype)


VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.unsqueeze.default)


def fix_views(flat: Flat, node: fx.Node) -> None:
    """Give every view the shape it has, with -1 for its one symbolic dimension.

    A reshaped part of a tensor stays what it is: its rows do not lie together, so that it is a copy and no view.
    """
    source: Any = node.args[0] if node.target in VIEWS else None
    if source is None or (node.target == aten.reshape.default and source.target == aten.slice.Tensor):
        return
    shape = [dim if isinstance(dim, int) else -1 for dim in node.meta["val"].shape]
    if shape.count(-1) <= 1:
        node.target = aten.view.default
        node.args = (node.args[0], shape)


def power_as_root(flat: Flat, node: fx.Node) -> None:
    """``x ** 0.5`` and ``x ** -0.5`` as the roots that XNNPACK has."""
    roots = {0.5: aten.sqrt.default, -0.5: aten.rsqrt.default}
    if node.target == aten.pow.Tensor_Scalar and node.args[1] in roots:
        exponent: Any = node.args[1]
        node.replace_all_uses_with(flat.insert(node, roots[exponent], (node.args[0],)))


def mean_as_linear(flat: Flat, node: fx.Node) -> None:
    """``mean(x, -1, keepdim)`` → ``x · onesᵀ/n``."""
    if node.target != aten.mean.dim or len(node.args) < 3 or not node.args[2] or node.kwargs.get("dtype"):
        return
    args: Any = node.args
    source, axes = args[:2]
    value = source.meta["val"]
    if list(axes) not in ([-1], [value.dim() - 1]):
        return
    size = int(value.shape[-1])
    ones = flat.constant(f"{OWN_PREFIX}mean_{size}", lambda: torch.full((1, size), 1.0 / size))
    node.replace_all_uses_with(flat.insert(node, aten.linear.default, (source, ones)))


def block_sum_as_linear(flat: Flat, node: fx.Node) -> None:
    """``view(x, [..., G, g]).sum(-1)`` → ``x · onesᵀ`` with int8 ones ``[G, G · g]``: XNNPACK adds codes."""
    if node.target != aten.sum.dim_IntList or list(node.args[1]) != [-1]:  # type: ignore[arg-type]
        return
    view: Any = node.args[0]
    if view.target not in (*VIEWS, aten.unflatten.int):
        return
    source: fx.Node = view.args[0]
    blocks, group = (int(size) for size in view.meta["val"].shape[-2:])
    if int(source.meta["val"].shape[-1]) != blocks * group:
        return
    name = f"{OWN_PREFIX}block_sum_{blocks}x{group}"
    codes = flat.constant(f"{name}.weight", lambda: torch.eye(blocks, dtype=torch.int8).repeat_interleave(group, 1))
    scales = flat.constant(f"{name}.scales", lambda: torch.ones(blocks))
    zeros = flat.constant(f"{name}.zeros", lambda: torch.zeros(blocks, dtype=torch.int64))
    dequantize = torch.ops.quantized_decomposed.dequantize_per_channel.default
    known = next((user for user in codes.users if user.target == dequantize), None)  # one node, so that sums are shared
    ones = known or flat.insert(node, dequantize, (codes, scales, zeros, 0, -127, 127, torch.int8))
    node.replace_all_uses_with(flat.insert(node, aten.linear.default, (source, ones)))


def rotation_as_linear(flat: Flat, node: fx.Node) -> None:
    """``cat(-x[half:], x[:half])`` → ``x · Rᵀ`` with a signed permutation R: exact in any float type."""
    source = rotated_source(node)
    if source is None:
        return
    size = int(source.meta["val"].shape[-1])

    def rotation() -> torch.Tensor:
        half = size // 2
        upper = torch.cat([torch.zeros(half, half), -torch.eye(half)], dim=1)
        return torch.cat([upper, torch.cat([torch.eye(half), torch.zeros(half, half)], dim=1)])

    matrix = flat.constant(f"{OWN_PREFIX}rotate_{size}", rotation)
    node.replace_all_uses_with(flat.insert(node, aten.linear.default, (source, matrix)))


def rotated_source(node: fx.Node) -> fx.Node | None:
    """The x of a ``cat(-x[half:], x[:half])``, or None when the node is something else."""
    parts: Any = node.args[0] if node.target == aten.cat.default else ()
    if len(parts) != 2 or parts[0].target != aten.neg.default:
        return None
    upper, lower = parts[0].args[0], parts[1]
    if any(part.target != aten.slice.Tensor for part in (upper, lower)) or upper.args[0] is not lower.args[0]:
        return None
    source: fx.Node = lower.args[0]
    value = source.meta["val"]
    axis, half = value.dim() - 1, int(value.shape[-1]) // 2
    wanted = upper.args[1:3] == (axis, half) and upper.args[3] >= 2 * half and lower.args[1:4] == (axis, 0, half)
    return source if wanted else None


ELEMENTWISE = (aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor)


def sink_transposes(flat: Flat, node: fx.Node) -> None:
    """Replace ``transpose(f(transpose(x)…), 1, 2)`` by ``f(x…)`` where f works on each position by itself."""
    if node.target == aten.transpose.int and node.args[1:] == (1, 2) and untransposable(node.args[0]):
        node.replace_all_uses_with(transposed(flat, node, node.args[0], {}))


def untransposable(node: Any) -> bool:
    """Whether the transpose of axes 1 and 2 of this value can be had without transposing."""
    if not isinstance(node, fx.Node):
        return isinstance(node, int | float)
    args: Any = node.args
    if node.target == aten.transpose.int:
        return bool(args[1:] == (1, 2))
    if node.target == aten.view.default:
        return len(args[1]) == 4 and bool(args[1][1] == 1)
    if node.target == aten.linear.default:
        return len(args) == 2 and untransposable(args[0])
    return node.target in ELEMENTWISE and all(untransposable(item) for item in args)


def transposed(flat: Flat, before: fx.Node, node: Any, memo: dict[fx.Node, fx.Node]) -> Any:
    """The value of `node` with axes 1 and 2 exchanged; see `untransposable`."""
    if not isinstance(node, fx.Node):
        return node
    if node in memo:
        return memo[node]
    args: Any = node.args
    if node.target == aten.transpose.int:
        result = args[0]
    elif node.target == aten.view.default:
        _, one, rows, columns = args[1]
        result = flat.insert(before, aten.view.default, (args[0], [1, rows, one, columns]))
    elif node.target == aten.linear.default:
        result = flat.insert(before, node.target, (transposed(flat, before, args[0], memo), args[1]))
    else:
        result = flat.insert(before, node.target, tuple(transposed(flat, before, item, memo) for item in args))
    memo[node] = result
    return result


def share(flat: Flat, node: fx.Node) -> None:
    """Merge calls that compute the same from the same: the activation rounding before q, k and v, for instance."""
    if node.meta.get("dead") or is_impure(node) or "llama." in str(node.target) or not node.args:
        return
    first = next((item for item in node.all_input_nodes if item.op != "get_attr"), None)
    if first is None:
        return
    for other in list(first.users):
        same = other is not node and not other.meta.get("dead") and other.target == node.target
        if same and other.args == node.args and other.kwargs == node.kwargs and node < other:
            other.meta["dead"] = True
            other.replace_all_uses_with(node)
