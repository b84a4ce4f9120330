"""Which layers of a model are traced for all: two of each kind. The targets make the others from these.

Tracing and lowering cost time per layer, and the layers of most models are one graph with other weights, or a few where
some attend to a window and some to everything.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIKE_EACH_KIND = 2
"""Layers of a kind that are traced, so that they can be compared."""


@dataclass(frozen=True)
class Plan:
    """Which layers are traced, and what stands for what.

    Attributes:
        traced: layers of the model, in order.
        like: for each layer of the model, the one of `traced` (counted from 0) that it is a copy of.
        same: pairs of `traced` that must be one graph.
    """

    traced: tuple[int, ...]
    like: tuple[int, ...]
    same: tuple[tuple[int, int], ...]


def plan(config: Any, facts: Sequence[object] | None = None) -> Plan | None:
    """How a model is traced in part; None when every layer has to be.

    Layers are of one kind when every list of the config that has an entry for each layer says the same of them, and
    `facts`, one for each layer, if given: what the config does not tell.
    """
    if getattr(config, "is_heterogeneous", False) or _linked(config):
        return None
    last, told = config.num_hidden_layers - 1, per_layer(config).values()
    kinds = [(*(repr(values[layer]) for values in told), facts[layer] if facts else None) for layer in range(last + 1)]
    few = {kind: [i for i in range(last) if kinds[i] == kind][:LIKE_EACH_KIND] for kind in kinds[:last]}
    traced = sorted({last, *(layer for of_kind in few.values() for layer in of_kind)})
    if len(traced) > last:
        return None
    place = {layer: position for position, layer in enumerate(traced)}
    like = [place[layer if layer in place else few[kinds[layer]][-1]] for layer in range(last + 1)]
    same = [(place[of_kind[0]], place[of_kind[-1]]) for of_kind in few.values()]
    return Plan(tuple(traced), tuple(like), tuple(same))


def _linked(config: Any) -> bool:
    """Whether layers read what others stored, or a part of their own of what was made for all."""
    return bool(getattr(config, "num_kv_shared_layers", 0) or getattr(config, "hidden_size_per_layer_input", 0))


def per_layer(config: Any) -> Mapping[str, Sequence[Any]]:
    """The lists of a config that have an entry for each layer."""
    layers = config.num_hidden_layers
    return {
        name: value for name, value in vars(config).items() if isinstance(value, list | tuple) and len(value) == layers
    }


def shortened(config: Any, traced: Sequence[int]) -> Any:
    """The config of the same model with the `traced` layers only."""
    short = copy.deepcopy(config)
    shorten(short, traced)
    return short


def shorten(config: Any, traced: Sequence[int]) -> None:
    """The same, in place."""
    for name, values in per_layer(config).items():
        setattr(config, name, [values[layer] for layer in traced])
    config.num_hidden_layers = len(traced)


def cut(model: Any, layers_path: str, traced: Sequence[int]) -> None:
    """Leave a model its `traced` layers, made for the whole: MiniCPM3 scales by how many there are."""
    layers = model.get_submodule(layers_path)
    kept = [layers[layer] for layer in traced]
    for position, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    model.set_submodule(layers_path, type(layers)(kept))
    shorten(model.config, traced)


def settings(module: Any) -> dict[str, Any]:
    """A module's own numbers and words, but for its place among the layers: what makes its graph another's."""
    return {k: v for k, v in vars(module).items() if isinstance(v, int | float | str) and k != "layer_idx"}
