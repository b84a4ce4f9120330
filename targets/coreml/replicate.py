"""Few converted layers → as many as the model has.

Tracing and converting cost time per layer, and most layers of a model are one graph with other weights. Two layers of
each kind are converted, between marks; only when both give the same operations is the first repeated for all others
of its kind. Models whose layers are of too many kinds are converted whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from .lower import Lowered, value_name
from .mil.blob import BlobFile
from .prototype import MARK, Plan


def expanded(lowered: Lowered, plan: Plan) -> Lowered | None:
    """The function with all its layers; None when two layers of a kind differ."""
    layers = Layers(lowered, plan)
    if any(layers.fingerprint(one) != layers.fingerprint(other) for one, other in plan.pairs):
        return None
    return layers.repeated()


class Layers:
    """One converted function taken apart into its layers.

    Attributes:
        owner: by value name, the layer it belongs to, -1 for what comes behind the layers; others have none.
        parts: operations by owner, constants apart.
        mark: by layer (-1: the end), the operation that was put before it.
        constants: by value name.
    """

    def __init__(self, lowered: Lowered, plan: Plan) -> None:
        self.lowered, self.plan = lowered, plan
        self.blob = BlobFile(lowered.weights_file)
        self.block = lowered.function.block_specializations[lowered.function.opset]
        self.owner: dict[str, int] = {}
        self.parts: dict[int | None, list[Any]] = {}
        self.mark: dict[int, Any] = {}
        self.constants: dict[str, Any] = {}
        self.users: dict[str, set[int | None]] = {}
        self.order = {layer: index for index, layer in enumerate((*plan.kept, -1))}
        for value in lowered.function.inputs:
            if value.name.startswith(value_name(MARK)):
                continue
            for layer in plan.kept:
                if self.named(value.name, layer, layer + 1) != value.name:
                    self.owner[value.name] = layer
        for operation in self.block.operations:
            self._assign(operation)

    def _assign(self, operation: Any) -> None:
        names = operands(operation)
        if operation.type == "const":
            self.constants[operation.outputs[0].name] = operation
            return
        marks = [name for name in names if name.startswith(value_name(MARK))]
        if marks:
            layer = (*self.plan.kept, -1)[int(marks[0].removeprefix(value_name(MARK)))]
            self.mark[layer] = operation
            self.owner[operation.outputs[0].name] = layer
            return
        owner = max((self.owner[one] for one in names if one in self.owner), key=self.order.__getitem__, default=None)
        self.parts.setdefault(owner, []).append(operation)
        for name in names:
            self.users.setdefault(name, set()).add(owner)
        if owner is not None:
            self.owner.update({value.name: owner for value in operation.outputs})

    def named(self, name: str, old: int, new: int) -> str:
        """The name of a matrix, a small parameter or a state of layer `old` as layer `new` has it."""
        before, after = (value_name(f"{self.plan.path}.{layer}.") for layer in (old, new))
        if before in name:
            return name.replace(before, after)
        return re.sub(rf"^([kv]_cache_){old}$", rf"\g<1>{new}", name)

    def own_constant(self, name: str, layer: int) -> bool:
        """Whether a value is a constant that only `layer` uses."""
        return name in self.constants and self.users.get(name) == {layer}

    def hidden(self, layer: int) -> str:
        """The value that the mark before `layer` stands for."""
        names = operands(self.mark[layer])
        return next(name for name in names if not name.startswith(value_name(MARK)))

    def parameter(self, name: str) -> torch.Tensor | None:
        """The small parameter that a constant of this name holds."""
        stem = name.removesuffix("_to_fp16")
        return next((v for k, v in self.plan.values.items() if value_name(f"model.{k}") == stem), None)

    def fingerprint(self, layer: int) -> list[Any]:
        """What the operations of a layer do, without saying whose weights they read."""
        tokens: dict[str, Any] = {self.mark[layer].outputs[0].name: "hidden"}
        lines: list[Any] = []
        for operation in self.parts.get(layer, []):
            reads = [
                (key, [self._token(bound, layer, tokens) for bound in operation.inputs[key].arguments])
                for key in sorted(operation.inputs)
            ]
            for value in operation.outputs:
                tokens[value.name] = len(tokens), value.type.SerializeToString(deterministic=True)
            lines.append((operation.type, reads, [tokens[value.name] for value in operation.outputs]))
        after = (*self.plan.kept, -1)[self.order[layer] + 1]
        return [*lines, tokens.get(self.hidden(after))]

    def _token(self, bound: Any, layer: int, tokens: Mapping[str, Any]) -> Any:
        if bound.WhichOneof("binding") != "name":
            return bound.value.SerializeToString(deterministic=True)
        name = bound.name
        if name in tokens:
            return tokens[name]
        if self.own_constant(name, layer):
            value = self.constants[name].attributes["val"]
            kind = value.type.SerializeToString(deterministic=True)
            held = self.parameter(name)
            if held is not None and held.numel() > 1:
                return "parameter", self.named(name, layer, 0), kind, tuple(held.shape)
            if value.WhichOneof("value") == "blobFileValue":
                shape = tuple(dim.constant.size for dim in value.type.tensorType.dimensions)
                return kind, self.blob.read(value.blobFileValue.offset, shape).tobytes()
            return kind, value.immediateValue.SerializeToString(deterministic=True)
        return "given", self.named(name, layer, 0) if self.owner.get(name) == layer else name

    def repeated(self) -> Lowered:
        """The whole function; small parameters of repeated layers are in `Lowered.values`."""
        function = type(self.lowered.function)()
        function.CopyFrom(self.lowered.function)
        block = function.block_specializations[function.opset]
        del block.operations[:]
        values: dict[str, Any] = {}
        apart = {name for name in self.constants if any(self.own_constant(name, i) for i in self.order)}
        block.operations.extend(one for name, one in self.constants.items() if name not in apart)
        block.operations.extend(self.parts.get(None, []))
        hidden = self.hidden(self.plan.kept[0])
        for layer, template in enumerate(self.plan.template):
            copy = Copy(self, template, layer, hidden, values)
            block.operations.extend(copy.operations())
            hidden = copy.new[self.hidden((*self.plan.kept, -1)[self.order[template] + 1])]
        end = Copy(self, -1, -1, hidden, values)
        block.operations.extend(end.operations())
        block.outputs[:] = [end.new.get(name, name) for name in self.block.outputs]
        description = type(self.lowered.description)()
        description.CopyFrom(self.lowered.description)
        for features in (function.inputs, description.input, description.state):
            self._declare(features)
        return replace(self.lowered, function=function, description=description, values=values)

    def _declare(self, features: Any) -> None:
        """Give a list of named features those of all layers, and take the marks out."""
        given = [one for one in features if not one.name.startswith(value_name(MARK))]
        shared = [one for one in given if one.name not in self.owner]
        layered: list[Any] = []
        for layer, template in enumerate(self.plan.template):
            for one in (one for one in given if self.owner.get(one.name) == template):
                twin = type(one)()
                twin.CopyFrom(one)
                twin.name = self.named(one.name, template, layer)
                layered.append(twin)
        kept = [type(one).FromString(one.SerializeToString()) for one in shared]
        del features[:]
        features.extend([*kept, *layered])


class Copy:
    """The operations of one layer, made of another's; `new` tells what its values are called."""

    def __init__(self, layers: Layers, template: int, layer: int, hidden: str, values: dict[str, Any]) -> None:
        self.layers, self.template, self.layer, self.values = layers, template, layer, values
        self.new = {layers.mark[template].outputs[0].name: hidden}

    def operations(self) -> list[Any]:
        """Constants first, each before its use."""
        made: list[Any] = []
        for operation in self.layers.parts.get(self.template, []):
            for name in operands(operation):
                if name not in self.new and self.layers.own_constant(name, self.template):
                    made.append(self._twin(self.layers.constants[name]))
                    self._fill(made[-1], name)
            made.append(self._twin(operation))
        return made

    def _twin(self, operation: Any) -> Any:
        twin = type(operation)()
        twin.CopyFrom(operation)
        for bound in (one for argument in twin.inputs.values() for one in argument.arguments):
            if bound.WhichOneof("binding") == "name":
                bound.name = self.new.get(bound.name) or self._given(bound.name)
        for value in twin.outputs:
            self.new[value.name] = value.name = self._called(value.name)
        if self.layer != self.template:
            text = twin.attributes["name"].immediateValue.tensor.strings.values
            text[0] = self._called(text[0].decode() if isinstance(text[0], bytes) else text[0])
        return twin

    def _given(self, name: str) -> str:
        mine = self.layers.owner.get(name) == self.template
        return self.layers.named(name, self.template, self.layer) if mine else name

    def _called(self, name: str) -> str:
        if self.layer == self.template:
            return name
        own = self.layers.named(name, self.template, self.layer)
        return own if own != name else f"{name}_layer_{self.layer}"

    def _fill(self, constant: Any, name: str) -> None:
        """A small parameter has this layer's own numbers, in the converted layers too: those are random."""
        held = self.layers.parameter(name)
        if held is not None and held.numel() > 1:
            called = self.layers.named(name, self.template, self.layer)
            own = self.layers.parameter(called)
            assert own is not None  # layers of a kind have the same parameters
            self.values[constant.outputs[0].name] = own.half().numpy()


def operands(operation: Any) -> list[str]:
    """Names of all values an operation uses."""
    bound = (one for argument in operation.inputs.values() for one in argument.arguments)
    return [one.name for one in bound if one.WhichOneof("binding") == "name"]
