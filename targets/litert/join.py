"""Linear layers that read the same input become one, in all subgraphs that have them.

Each layer is a call that wakes threads, and rounds its input once more: one matrix with the rows of q, k and v, and one
with those of gate and up, and likewise of the layers of shifts beside them. Each row is multiplied as before, so the
values stay the same to the last bit.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import opaque
from .stored import Scales, Stored

AND, ROWS = "|", ":"
"""Between the parts of a joined constant's name, and before each part's number of rows."""
LAYER = re.compile(r".*?\.\d+\.")
PART = re.compile(rf"(.+){ROWS}(\d{{1,9}})")


@dataclass(frozen=True)
class Group:
    """Calls of linear layers in one subgraph, with the names of their weights and biases."""

    calls: tuple[Any, ...]
    weights: tuple[str, ...]
    biases: tuple[str, ...]


def groups(graphs: Sequence[tuple[Any, Mapping[int, str]]], weights: Mapping[str, Stored]) -> list[list[Group]]:
    """For each (graph, parameter names by tensor) what is to be joined in it.

    A layer that stands alone in one graph (a prefill needs no queries of the last layer) stays alone in all of them:
    otherwise its weights would be in the file twice.
    """
    found = [candidates(graph, names, weights) for graph, names in graphs]
    used = [set(names.values()) for _, names in graphs]
    together = [{one.weights for one in of} for of in found]

    def everywhere(group: Group) -> bool:
        return all(group.weights in of or not used[i].intersection(group.weights) for i, of in enumerate(together))

    return [[one for one in of if everywhere(one)] for of in found]


def candidates(graph: Any, names: Mapping[int, str], weights: Mapping[str, Stored]) -> list[Group]:
    """Layers of one graph that differ in nothing but their rows."""
    alike: dict[tuple[Any, ...], list[Any]] = {}
    readers = Counter(index for operator in graph.operators for index in operator.inputs)
    for operator in graph.operators:
        if opaque.call_name(operator) != opaque.LINEAR:
            continue
        source, weight, bias = [*operator.inputs, -1][:3]
        name, layer = names.get(weight, ""), LAYER.match(names.get(weight, ""))
        if layer is None or readers[weight] > 1 or weights[name].scales is None or (bias >= 0 and bias not in names):
            continue
        alike.setdefault((source, layer[0], kind(weights[name]), bias >= 0), []).append(operator)
    return [
        Group(
            tuple(calls),
            tuple(names[call.inputs[1]] for call in calls),
            tuple(names[call.inputs[2]] for call in calls if len(call.inputs) > 2 and call.inputs[2] >= 0),
        )
        for calls in alike.values()
        if len(calls) > 1
    ]


def kind(weight: Stored) -> tuple[Any, ...]:
    """What matrices must have in common."""
    blocks = weight.scales.shape[1] if weight.scales else 0
    return weight.kind, weight.shape[1], blocks, None if weight.shifts is None else weight.shifts.shape[1]


def joined(parts: Sequence[Stored]) -> Stored:
    """Their rows one behind the other."""
    scales = [part.scales for part in parts if part.scales is not None]
    shifts = [part.shifts for part in parts if part.shifts is not None]
    return Stored(
        kind=parts[0].kind,
        shape=(sum(part.shape[0] for part in parts), *parts[0].shape[1:]),
        pieces=lambda: itertools.chain.from_iterable(part.pieces() for part in parts),
        scales=joined_scales(scales) if scales else None,
        shifts=joined(shifts) if shifts else None,
    )


def joined_scales(parts: Sequence[Scales]) -> Scales:
    """Their rows one behind the other."""
    return Scales(
        shape=(sum(part.shape[0] for part in parts), parts[0].shape[1]),
        pieces=lambda: itertools.chain.from_iterable(part.pieces() for part in parts),
    )


def joined_name(names: Sequence[str], weights: Mapping[str, Stored]) -> str:
    """What the file calls it: every part's name and number of rows."""
    return AND.join(f"{name}{ROWS}{weights[name].shape[0]}" for name in names)


def parts_of(name: str) -> list[tuple[str, int]]:
    """(name, number of rows) of all parts; none when `name` is that of one parameter."""
    parts = [PART.fullmatch(part) for part in name.split(AND)]
    return [(part[1], int(part[2])) for part in parts if part] if AND in name and all(parts) else []
