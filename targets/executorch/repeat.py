"""A few traced layers → as many as the model has, in the flat graph.

Of each kind of layer two are traced (`reference.layers`) and compared node by node; only if they are the same is the
second one repeated for all others of its kind. What is written is the same to the last byte as if all were traced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from kobako.pipeline.reference.layers import Plan, settings
from torch import fx, nn

from .graph import Flat, Tensors


def facts(layers: nn.Module) -> list[tuple[Any, ...]]:
    """Per layer, what makes its graph another's: modules, their settings, shapes and types of their tensors."""
    return [
        tuple(
            (path, type(module).__name__, repr(sorted(settings(module).items())), _shapes(module))
            for path, module in layer.named_modules()
        )
        for layer in layers.children()
    ]


def _shapes(module: nn.Module) -> str:
    own = {**module._parameters, **module._buffers}
    return repr([(k, v.dtype, tuple(v.shape)) for k, v in sorted(own.items()) if v is not None])


class Names:
    """How constants of a layer are called: its parameters below `path`, and the buffers of its KV cache."""

    def __init__(self, path: str) -> None:
        self._own = re.compile(rf"({re.escape(path)}\.)(\d+)(\..*)|((?:keys|values)_)(\d+)(_\w+)?")

    def layer(self, name: str) -> int | None:
        """The layer that a constant belongs to."""
        found = self._own.fullmatch(name)
        return int(found[2] or found[5]) if found else None

    def of(self, name: str, layer: int) -> str:
        """The same constant of another layer."""
        found = self._own.fullmatch(name)
        if found is None:
            return name
        before, _, after = found.groups()[:3] if found[2] else found.groups()[3:]
        return f"{before}{layer}{after or ''}"


def repeated(flat: Flat, plan: Plan, path: str, tensors: Tensors) -> Flat | None:
    """The graph with all its layers; None when those of a kind differ, or read more of each other than a hidden state.

    `path` is where the layers are in the traced module; `tensors` are the constants of all layers by name.
    """
    traced = Traced.of(flat, Names(path), len(plan.traced))
    if traced is None or any(traced.fingerprint(a) != traced.fingerprint(b) for a, b in plan.same):
        return None
    return Repetition(traced, plan, tensors).whole()


@dataclass
class Traced:
    """The traced graph taken apart.

    Attributes:
        owner: the layer a node belongs to; what all layers may read has none.
        hidden: per layer the one node that it reads of what comes before it; one more for what follows the last.
    """

    graph: Flat
    names: Names
    owner: dict[fx.Node, int | None] = field(default_factory=dict)
    hidden: list[fx.Node] = field(default_factory=list)

    @classmethod
    def of(cls, flat: Flat, names: Names, layers: int) -> Traced | None:
        """None when a layer reads more than one value of the layer before it, or anything of another."""
        one = cls(flat, names)
        carried: set[fx.Node] = set()  # values that depend on the tokens, not only on how many there are
        for node in flat.graph.nodes:
            reads = node.all_input_nodes
            if isinstance(node.meta.get("val"), torch.Tensor) and (
                str(node.target) == "tokens" or any(item in carried for item in reads)
            ):
                carried.add(node)
            owned = node in carried or any(one.owner[item] is not None for item in reads)
            place = names.layer(str(node.target)) if node.op == "get_attr" else one._place(node) if owned else None
            one.owner[node] = place
        one._claim()
        crossings = [*(one._crossings(layer, carried) for layer in range(layers)), one._tail(layers)]
        if any(len(found) != 1 for found in crossings):
            return None
        one.hidden = [found.pop() for found in crossings]
        return one

    def _claim(self) -> None:
        """Give a layer what it makes of shared values for itself alone: of the angles, for instance."""
        for node in reversed(self.owner):
            place = self._place(node)
            if self.owner[node] is None and place is not None and {self.owner[user] for user in node.users} == {place}:
                self.owner[node] = place

    def _place(self, node: fx.Node) -> int | None:
        """The layer whose code made a node."""
        places = [self.names.layer(f"{path}.") for path, _ in node.meta.get("nn_module_stack", {}).values()]
        return next((place for place in reversed(places) if place is not None), None)

    def _crossings(self, layer: int, carried: set[fx.Node]) -> set[fx.Node]:
        """What a layer reads of what others computed: for the first, of what comes before the layers."""
        found = {
            item
            for node, owner in self.owner.items()
            if owner == layer
            for item in node.all_input_nodes
            if self.owner[item] not in (layer, None) or (layer == 0 and self.owner[item] is None and item in carried)
        }
        return found if all(self.owner[item] == (layer - 1 if layer else None) for item in found) else set()

    def _tail(self, layers: int) -> set[fx.Node]:
        """What comes behind the layers reads of the last one; nothing if it reads of others too."""
        found = {
            item
            for node, owner in self.owner.items()
            if owner is None
            for item in node.all_input_nodes
            if self.owner[item] is not None
        }
        return found if all(self.owner[item] == layers - 1 for item in found) else set()

    def fingerprint(self, layer: int) -> list[Any]:
        """What the nodes of a layer do, without saying whose constants they read."""
        tokens: dict[fx.Node, Any] = {self.hidden[layer]: "hidden"}
        lines: list[Any] = []
        for node in (node for node, owner in self.owner.items() if owner == layer and node.op != "get_attr"):
            reads = [
                fx.node.map_arg(args, lambda item: repr(self._token(item, tokens))) for args in (node.args, node.kwargs)
            ]
            tokens[node] = len(lines)
            lines.append((str(node.target), repr(reads), kind(node)))
        return [*lines, tokens[self.hidden[layer + 1]]]

    def _token(self, node: fx.Node, tokens: Mapping[fx.Node, Any]) -> Any:
        if node in tokens:
            return tokens[node]
        if node.op != "get_attr":
            return "shared", node.name
        if self.owner[node] is not None:
            return "own", self.names.of(str(node.target), 0), kind(node)
        value = self.graph.tensors[str(node.target)]
        return "constant", kind(node), value.tolist() if value.numel() <= LARGEST_COMPARED else str(node.target)


LARGEST_COMPARED = 64
"""Numbers of a constant that is told from another by its values and not by its name."""


def kind(node: fx.Node) -> str:
    """Type and shape of a value."""
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else [value]
    return repr([(one.dtype, list(one.shape)) if isinstance(one, torch.Tensor) else str(one) for one in values])


class Repetition:
    """Builds the graph with all layers.

    Attributes:
        copies: what a node outside the layers, or of the traced layer at hand, has become.
        hidden: what the layer at hand begins with.
    """

    def __init__(self, traced: Traced, plan: Plan, tensors: Tensors) -> None:
        self.traced, self.plan = traced, plan
        self.every = {**traced.graph.tensors, **tensors}
        self.flat = Flat(fx.Graph(), {})
        self.constants: dict[str, fx.Node] = {}
        self.copies: dict[fx.Node, fx.Node] = {}
        self.hidden: fx.Node | None = None
        self.parts: dict[int, list[fx.Node]] = {}
        for node, owner in traced.owner.items():
            if owner is not None and node.op != "get_attr":
                self.parts.setdefault(owner, []).append(node)

    def whole(self) -> Flat:
        """Nodes in the order in which tracing everything would have met them."""
        ends = {part[-1]: position for position, part in self.parts.items()}
        begins = {part[0]: position for position, part in self.parts.items()}
        written = 0
        for node, owner in self.traced.owner.items():
            if node.op == "get_attr":
                continue
            if node in begins:
                for layer in range(written, self.plan.traced[begins[node]]):
                    self._repeat(layer)
                written = self.plan.traced[begins[node]] + 1
                if self.hidden is not None:
                    self.copies[self.traced.hidden[begins[node]]] = self.hidden
            self.copies[node] = self._copy(node, self.copies, None if owner is None else self.plan.traced[owner])
            if node in ends:
                self.hidden = self.copies[self.traced.hidden[ends[node] + 1]]
        return self.flat

    def _repeat(self, layer: int) -> None:
        """One layer that was not traced."""
        template = self.plan.like[layer]
        assert self.hidden is not None  # the first layer is always traced
        inside = {self.traced.hidden[template]: self.hidden}
        for node in self.parts[template]:
            inside[node] = self._copy(node, inside, layer)
        self.hidden = inside[self.traced.hidden[template + 1]]

    def _copy(self, node: fx.Node, inside: Mapping[fx.Node, fx.Node], layer: int | None) -> fx.Node:
        def given(item: fx.Node) -> fx.Node:
            if item.op == "get_attr":
                return self._constant(item, layer)
            return inside[item] if item in inside else self.copies[item]

        return self.flat.graph.node_copy(node, given)

    def _constant(self, node: fx.Node, layer: int | None) -> fx.Node:
        """A reference to a constant, as `layer` has it."""
        name = str(node.target)
        if layer is not None and self.traced.owner[node] is not None:
            name = self.traced.names.of(name, layer)
        if name not in self.constants:
            self.flat.tensors[name] = self.every[name]
            self.constants[name] = self.flat.graph.get_attr(name)
            self.constants[name].meta["val"] = node.meta["val"]
        return self.constants[name]
