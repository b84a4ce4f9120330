"""A few traced layers → as many as the model has: every middle layer is a copy of a traced one of its kind.

Two layers of each kind are traced (`reference.layers`) and compared operator by operator; only if they are the same is
the second one repeated. The last layer stands for itself: a prefill does not need its end.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from kobako.pipeline.reference.layers import Plan

from . import opaque
from .flatbuffer import schema, text


def replicate(model: Any, plan: Plan, layers_path: str) -> bool:
    """Give every subgraph of the traced `model` all its layers; False, and nothing done, when they differ."""
    graphs = [
        Layers.of(model, model.subgraphs[signature.subgraphIndex], signature, layers_path, len(plan.traced))
        for signature in model.signatureDefs
    ]
    if not all(one.fingerprint(a) == one.fingerprint(b) for one in graphs for a, b in plan.same):
        return False
    for one in graphs:
        one.repeat(plan)
    return True


@dataclass
class Layers:
    """One subgraph taken apart into its layers.

    Attributes:
        names: signature names by tensor index, inputs only.
        owner: the layer a tensor belongs to; tensors that all layers may read have none.
        hidden: the tensor each layer begins with; the last entry is what follows the layers, if anything does.
    """

    model: Any
    graph: Any
    signature: Any
    path: str
    traced: int
    names: Mapping[int, str]
    owner: dict[int, int] = field(default_factory=dict)
    hidden: list[tuple[int, int]] = field(default_factory=list)  # a mark's (input, output)
    parts: dict[int | None, list[Any]] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, graph: Any, signature: Any, path: str, traced: int) -> Layers:
        one = cls(model, graph, signature, path, traced, {v.tensorIndex: text(v.name) for v in signature.inputs})
        for index, name in one.names.items():
            for layer in range(traced):
                if one.renamed(name, layer, layer + 1) != name:
                    one.owner[index] = layer
        for operator in graph.operators:
            one._assign(operator)
        return one

    def _assign(self, operator: Any) -> None:
        if opaque.call_name(operator) == opaque.MARK:
            self.owner[operator.outputs[0]] = len(self.hidden)
            self.hidden.append((operator.inputs[0], operator.outputs[0]))
            return
        owners = [self.owner[index] for index in operator.inputs if index in self.owner]
        part = max(owners, default=None)
        self.parts.setdefault(part, []).append(operator)
        if part is not None:
            self.owner.update({int(index): part for index in operator.outputs})

    def renamed(self, name: str, old: int, new: int) -> str:
        """A signature name of layer `old` as layer `new` has it; other names unchanged."""
        before = f"{self.path}.{old}."
        if before in name:
            return name.replace(before, f"{self.path}.{new}.")
        stem, _, number = name.rpartition("_")
        return f"{stem}_{new}" if number == str(old) and "kv_cache_" in stem else name

    def fingerprint(self, layer: int) -> list[Any]:
        """What the operators of a layer do, without saying whose weights they read."""
        produced: dict[int, Any] = {self.hidden[layer][1]: "hidden"}
        lines = []
        for operator in self.parts.get(layer, []):
            options = [
                vars(one) if one is not None else None for one in (operator.builtinOptions, operator.builtinOptions2)
            ]
            reads = [produced.get(index, self._token(index, layer)) for index in operator.inputs]
            for index in operator.outputs:
                produced[index] = (len(produced), self._kind(index))
            lines.append((operator.opcodeIndex, repr(options), reads, [produced[index] for index in operator.outputs]))
        return [*lines, produced.get(self.hidden[layer + 1][0])]

    def _token(self, index: int, layer: int) -> Any:
        if index in self.names:
            return self.renamed(self.names[index], layer, -1)
        data = self.model.buffers[self.graph.tensors[index].buffer].data if index >= 0 else None
        return index if data is None else (self._kind(index), bytes(np.asarray(data)))

    def _kind(self, index: int) -> tuple[int, list[int]]:
        tensor = self.graph.tensors[index]
        return tensor.type, [int(size) for size in (tensor.shape if tensor.shape is not None else ())]

    def repeat(self, plan: Plan) -> None:
        """Rebuild the subgraph with all layers."""
        operators = list(self.parts.get(None, []))
        outputs = {text(value.name): value.tensorIndex for value in self.signature.outputs}
        found: dict[str, int] = {name: i for name, i in outputs.items() if self.owner.get(i) not in range(self.traced)}
        hidden = self.hidden[0][0]
        for layer, template in enumerate(plan.like):
            mapping = {self.hidden[template][1]: hidden}
            operators += [self._copy(operator, mapping, template, layer) for operator in self.parts.get(template, [])]
            for name, index in outputs.items():
                if self.owner.get(index) == template:
                    found[self.renamed(name, template, layer)] = mapping[index]
            if template + 1 < len(self.hidden):
                hidden = mapping[self.hidden[template + 1][0]]
        if len(self.hidden) > self.traced:
            rest = {self.hidden[self.traced][1]: hidden}
            for operator in self.parts.get(self.traced, []):
                operator.inputs = [rest.get(index, index) for index in operator.inputs]
                operators.append(operator)
        self.graph.operators = operators
        self._declare(found)

    def _copy(self, operator: Any, mapping: dict[int, int], template: int, layer: int) -> Any:
        twin = copy.copy(operator)
        twin.inputs = [self._input(index, mapping, template, layer) for index in operator.inputs]
        twin.outputs = [self._new_tensor(index, f"layer.{layer}.{index}") for index in operator.outputs]
        mapping.update(zip(map(int, operator.outputs), twin.outputs, strict=True))
        return twin

    def _input(self, index: int, mapping: Mapping[int, int], template: int, layer: int) -> int:
        if index in mapping or self.owner.get(index) != template:
            return mapping.get(index, index)
        name = self.renamed(self.names[index], template, layer)
        if name not in self.created:
            self.created[name] = self._new_tensor(index, name)
        return self.created[name]

    def _new_tensor(self, index: int, name: str) -> int:
        tensor = copy.copy(self.graph.tensors[index])
        tensor.name = name
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _declare(self, outputs: Mapping[str, int]) -> None:
        shared = {name: index for index, name in self.names.items() if index not in self.owner}
        self.signature.inputs = _tensor_map(shared | self.created)
        self.signature.outputs = _tensor_map(outputs)
        self.graph.inputs = [value.tensorIndex for value in self.signature.inputs]
        self.graph.outputs = [value.tensorIndex for value in self.signature.outputs]


def _tensor_map(indices: Mapping[str, int]) -> Sequence[Any]:
    listed = []
    for name in sorted(indices):
        value = schema().TensorMapT()
        value.name, value.tensorIndex = name, int(indices[name])
        listed.append(value)
    return listed
