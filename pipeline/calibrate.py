"""A model read layer by layer: each layer is quantized on what the already quantized layers before it say.

Shape legend: T tokens of a calibration sequence, I inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .contracts import FloatArray
from .reference.eager import read_ids
from .watch import last_answer

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from .reference.residence import Residence

Quantize = Callable[[str, FloatArray, FloatArray], FloatArray]
"""(parameter name, its value ``[O, I]``, second moments of its inputs ``[I, I]``) → what it is worth after rounding."""


@dataclass(frozen=True)
class Call:
    """What one layer was given for one sequence, besides its hidden states."""

    others: tuple[Any, ...]
    named: Mapping[str, Any]


@dataclass(frozen=True)
class Examples:
    """What a layer reads and should say: hidden states ``[1, T, hidden]`` by sequence, and how it was called."""

    inputs: Sequence[torch.Tensor]
    wanted: Sequence[torch.Tensor]
    calls: Sequence[Call]


Refine = Callable[[str, Any, Examples], None]
"""(path of a layer, the layer, rounded, and its examples): may change the layer's weights once more."""


def quantize_layers(
    model: PreTrainedModel,
    layers: str,
    sequences: list[list[int]],
    quantize: Quantize,
    done: Callable[[int], None],
    refine: Refine | None = None,
) -> None:
    """Replace the weights of every linear layer inside `layers` (a module path) by what `quantize` makes of them.

    With `refine`, each layer is then shown what the original layers say to the same text. `done` is told the number of
    finished layers. Of a model with a residence, one layer at a time is in memory.
    """
    import torch

    stack: Any = model.get_submodule(layers)
    residence: Residence | None = getattr(model, "residence", None)
    with torch.no_grad():  # not inference_mode: what refines takes gradients through these tensors
        hidden, calls = _first_calls(model, stack, sequences)
        wanted, originals = hidden, _with_own_stores(calls)
        for index, layer in enumerate(stack):
            path = f"{layers}.{index}"
            with nullcontext() if residence is None else residence.held(layer):
                with second_moments(layer, f"{path}.") as moments:
                    _run(layer, calls[index], hidden)
                if refine is not None:
                    wanted = _run(layer, originals[index], wanted)
                for name, module in linear_layers(layer, f"{path}."):
                    value = module.weight.detach().numpy()
                    mean = moments.pop(name).mean()
                    module.weight.copy_(torch.from_numpy(quantize(f"{name}.weight", value, mean)))
                if refine is not None:
                    refine(path, layer, Examples(hidden, wanted, calls[index]))
                hidden = _run(layer, calls[index], hidden)
            done(index + 1)


def input_moments(model: PreTrainedModel, path: str, sequences: list[list[int]]) -> FloatArray:
    """Second moments ``[I, I]`` of the inputs of the linear layer at `path`, while `model` reads `sequences`."""
    import torch

    def stop(_module: nn.Module, _inputs: tuple[torch.Tensor, ...]) -> None:
        raise _Enough

    with torch.inference_mode(), second_moments(model, "", only=path) as moments:
        handle = model.get_submodule(path).register_forward_pre_hook(stop)  # after the hook that takes the moments
        for ids in sequences:
            with suppress(_Enough):  # logits of all tokens would take a gigabyte for a large vocabulary
                read_ids(model, ids, whole_head=True)
        handle.remove()
    return moments[path].mean()


class _Enough(Exception):
    """What was wanted has been seen."""


class Moments:
    """A running mean of x xᵀ over tokens."""

    def __init__(self) -> None:
        self.sum: FloatArray | None = None
        self.tokens = 0

    def add(self, products: FloatArray, tokens: int) -> None:
        """Products ``[I, I]``: xᵀx of `tokens` rows."""
        self.sum = products if self.sum is None else self.sum + products
        self.tokens += tokens

    def mean(self) -> FloatArray:
        """``[I, I]``."""
        assert self.sum is not None
        return np.asarray(self.sum / np.float32(self.tokens))


def linear_layers(module: nn.Module, prefix: str) -> Iterator[tuple[str, Any]]:
    """The linear layers inside a module, with their full names."""
    from torch import nn

    for name, inner in module.named_modules():
        if isinstance(inner, nn.Linear):
            yield prefix + name, inner


@contextmanager
def second_moments(module: nn.Module, prefix: str, only: str | None = None) -> Iterator[dict[str, Moments]]:
    """Within the block, inputs of the linear layers of `module` are summed up, by full name."""
    found: dict[str, Moments] = {}

    @last_answer
    def products(states: torch.Tensor) -> tuple[FloatArray, int]:
        rows = states.reshape(-1, states.shape[-1])
        return (rows.T @ rows).numpy(), len(rows)

    def watch(name: str, inner: Any) -> torch.utils.hooks.RemovableHandle:
        found[name] = Moments()
        return inner.register_forward_pre_hook(  # type: ignore[no-any-return]
            lambda _module, inputs: found[name].add(*products(inputs[0]))
        )

    wanted = [(name, inner) for name, inner in linear_layers(module, prefix) if only in (None, name)]
    handles = [watch(name, inner) for name, inner in wanted]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _first_calls(
    model: PreTrainedModel, stack: Any, sequences: list[list[int]]
) -> tuple[list[torch.Tensor], list[list[Call]]]:
    """The first layer's hidden states ``[1, T, hidden]`` by sequence, and each layer's calls, ``[layer][sequence]``.

    What layers are called with besides hidden states does not depend on these: after the first sequence, which tells
    the form of their results, nothing is computed in them.
    """
    hidden: list[torch.Tensor] = []
    calls: list[list[Call]] = [[] for _ in stack]

    def note(index: int) -> Callable[..., None]:
        def before(_module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            calls[index].append(Call(args[1:], dict(named)))
            if index == 0:
                hidden.append(args[0])

        return before

    handles = [layer.register_forward_pre_hook(note(i), with_kwargs=True) for i, layer in enumerate(stack)]
    try:
        results: list[Any] = []
        for number, ids in enumerate(sequences):
            with telling(stack[0], results) if number == 0 else skipped(stack, results[0]):
                read_ids(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    return hidden, calls


def _with_own_stores(calls: list[list[Call]]) -> list[list[Call]]:
    """The same calls with stores of their own: what layers leave for later ones (Gemma's shared keys and values).

    Original and rounded layers read the same text in turns; neither may find what the other left.
    """
    copies: dict[int, Any] = {}

    def own(value: Any) -> Any:
        return copies.setdefault(id(value), copy(value)) if isinstance(value, MutableMapping) else value

    return [
        [Call(tuple(map(own, call.others)), {name: own(value) for name, value in call.named.items()}) for call in layer]
        for layer in calls
    ]


@contextmanager
def telling(layer: nn.Module, results: list[Any]) -> Iterator[None]:
    """Within it, what the layer returns is noted."""
    handle = layer.register_forward_hook(lambda _module, _inputs, output: results.append(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def skipped(stack: Any, like: Any) -> Iterator[None]:
    """Within it, layers hand on the hidden states that they are given, in the form of the result `like`."""

    def hand_on(states: torch.Tensor, *_others: Any, **_named: Any) -> Any:
        return (states,) if isinstance(like, tuple) else states

    for layer in stack:
        layer.forward = hand_on  # hides that of its class
    try:
        yield
    finally:
        for layer in stack:
            del layer.forward


def _run(layer: Any, calls: list[Call], hidden: list[torch.Tensor]) -> list[torch.Tensor]:
    """What a layer says to other hidden states than it was first called with."""
    results = []
    for call, states in zip(calls, hidden, strict=True):
        output = layer(states, *call.others, **call.named)
        results.append(output[0] if isinstance(output, tuple) else output)
    return results
