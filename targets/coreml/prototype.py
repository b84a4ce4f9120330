"""Which layers of a model are converted for all: two of each kind, between marks (`replicate` makes the others)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from kobako.pipeline.reference.layers import per_layer, settings, shorten
from torch import nn

from .graph import FedLinear, StatefulModel

MARK = "kobako.mark."
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """Which layers are converted.

    Attributes:
        path: module path of the layers.
        template: for every layer, the converted one that it is like.
        kept: the converted ones, in order.
        pairs: of them, those that must be alike.
        values: small parameters of all layers, float32, by module path; the traced ones are random, so that no two
            of them are taken for the same constant.
    """

    path: str
    template: tuple[int, ...]
    kept: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    values: Mapping[str, torch.Tensor] = field(repr=False)


def plan(model: StatefulModel, shapes: Shapes, path: str) -> Plan | None:
    """Two layers of each kind; None when those are more than half of the model."""
    config, layers = model.model.config, model.model.get_submodule(path)
    count = len(layers)
    if model.sizes.per_layer or len(model.sizes.caches) != count or getattr(config, "is_heterogeneous", False):
        return None
    lists = per_layer(config).values()
    kinds = [
        (*(repr(one[i]) for one in lists), model.sizes.caches[i], *kind(layers[i], shapes, f"{path}.{i}."))
        for i in range(count)
    ]
    members = {one: [i for i, other in enumerate(kinds) if other == one] for one in kinds}
    kept = tuple(sorted(i for one in members.values() for i in one[:2]))
    if 2 * len(kept) > count:
        return None
    values = {f"{path}.{name}": tensor.detach().clone() for name, tensor in small(layers).items()}
    template = tuple(i if i in kept else members[one][1] for i, one in enumerate(kinds))
    return Plan(path, template, kept, tuple((one[0], one[1]) for one in members.values() if len(one) > 1), values)


def kind(layer: nn.Module, shapes: Shapes, prefix: str) -> list[Any]:
    """All that makes one layer's graph another's, weights aside."""
    facts: list[Any] = []
    for path, module in layer.named_modules():
        plain = settings(module)
        if isinstance(module, FedLinear):
            plain["matrix"] = (module.matrix.removeprefix(prefix), shapes[module.matrix])
        facts.append((path, type(module).__name__, repr(sorted(plain.items()))))
    for name, tensor in small(layer).items():
        facts.append((name, tuple(tensor.shape), float(tensor) if tensor.numel() == 1 else None))
    return facts


def small(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that are constants of the graph."""
    every = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor for name, tensor in every.items() if tensor.is_floating_point() and not tensor.is_meta}


def cut(model: StatefulModel, shapes: Shapes, plan: Plan) -> Shapes:
    """Leave `model` the kept layers, marked, with small parameters of random numbers; the shapes it is then fed."""
    layers = model.model.get_submodule(plan.path)
    shorten(model.model.config, plan.kept)
    for key in set(map(int, layers._modules)) - set(plan.kept):
        del layers._modules[str(key)]
    random = torch.Generator().manual_seed(0)
    for tensor in small(layers).values():
        if tensor.numel() > 1:
            tensor.data = torch.rand(tensor.shape, generator=random) + 0.5
    mark_layers(model, layers)
    wanted = re.compile(re.escape(plan.path) + r"\.(\d+)\.")
    fed = {n: s for n, s in shapes.items() if not (found := wanted.match(n)) or int(found[1]) in plan.kept}
    fed |= {f"{MARK}{index}": (1,) for index in range(len(plan.kept) + 1)}
    model.names, model.kept = tuple(fed), plan.kept
    return fed


def mark_layers(model: StatefulModel, layers: Any) -> None:
    """Put a mark before every layer and one behind the last: a maximum with an input that is nothing else's."""
    for index, layer in enumerate(layers):

        def before(_: nn.Module, inputs: tuple[Any, ...], name: str = f"{MARK}{index}") -> tuple[Any, ...]:
            return (torch.maximum(inputs[0], model.table[name]), *inputs[1:])

        layer.register_forward_pre_hook(before)

    def after(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        last = model.table[f"{MARK}{len(layers)}"]
        return (
            (torch.maximum(output[0], last), *output[1:]) if isinstance(output, tuple) else torch.maximum(output, last)
        )

    layer.register_forward_hook(after)
