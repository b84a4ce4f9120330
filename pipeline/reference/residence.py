"""Which weights of a model in float32 stay in memory, and where the others come from when they are needed.

A model in float32 takes twice its checkpoint. What fits into a budget stays; of the rest, a linear layer's matrix is
read just before the layer works and dropped after it, and an embedding reads the rows that it is asked for. The numbers
that are multiplied are the same either way, and so are the shapes of the products: a matrix beyond WHOLE_BYTES is
multiplied in parts whether it stays or not.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contracts import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import nn

Rows = Callable[[int, int], FloatArray]
"""(begin, end) → these rows of a parameter in float32."""

WHOLE_BYTES = 3 << 28
"""A larger matrix is multiplied in parts."""
PART_BYTES = 1 << 28


@dataclass(frozen=True)
class Budget:
    """Bytes of float32 weights that may stay in memory, from the number of parameters.

    Together with the interpreter, one matrix on its way, and what a stage keeps besides, a process then stays within
    2.6 bytes per parameter (1.3 × the checkpoint in bfloat16) and 1.5 GB.
    """

    bytes_per_parameter: float
    spare_bytes: float

    def of(self, parameters: int) -> float:
        """For a model with so many parameters."""
        return self.bytes_per_parameter * parameters + self.spare_bytes


EVERYTHING = Budget(math.inf, 0.0)
"""For those who look at the weights themselves."""
READING = Budget(2.2, 0.35e9)
CALIBRATING = Budget(0.8, 0.45e9)
"""Less, since the codes of finished layers wait beside the model."""


class Outside:
    """The matrix of a linear layer, in memory while somebody holds it."""

    def __init__(self, module: Any, rows: Rows) -> None:
        self._module, self.rows = weakref.ref(module), rows  # a cycle would keep a model that nobody needs any more
        self._holders = 0
        self._absent = module.weight = absent(module.weight.shape)

    @property
    def present(self) -> bool:
        """Whether the matrix is in memory."""
        return self._holders > 0

    def hold(self, *_: object) -> None:
        """Read the matrix, unless it is there."""
        if not self._holders:
            self._set(constant(self.rows(0, len(self._absent))))
        self._holders += 1

    def release(self, *_: object) -> None:
        """Drop the matrix, unless another holds it."""
        self._holders -= 1
        if not self._holders:
            self._set(self._absent)

    def _set(self, value: nn.Parameter) -> None:
        module = self._module()
        assert module is not None  # it is its hooks that call
        module.weight = value


class Residence:
    """The parameters of one model: those that stay, and those that lie outside.

    `model` comes with empty parameters; those that are the same parameter under several names stay so.
    """

    def __init__(self, model: nn.Module, budget: Budget, *, row_by_row: bool) -> None:
        """`row_by_row`: whether single rows can be read cheaply; an embedding stays in memory otherwise."""
        self._places = places(model)
        self.outside = frozenset(_beyond(model, budget, self._places, row_by_row))
        self._readers: dict[int, Any] = {}
        for held in self._places.values():
            for module, leaf in held:
                if leaf == "weight" and _is_linear(module) and _bytes(module.weight) > WHOLE_BYTES:
                    in_parts(module, self._readers)

    def put(self, name: str, rows: Rows) -> None:
        """Let `rows` be what the parameter `name` is read from, now or whenever it is needed."""
        held = self._places[name]
        shape = getattr(*held[0]).shape
        if name not in self.outside:
            value = constant(rows(0, shape[0] if shape else 1))
            for module, leaf in held:
                setattr(module, leaf, value)
            return
        for module, _ in held:
            reader = self._readers.get(id(module))
            if reader is not None:
                reader.rows = rows
            elif _is_linear(module):
                self._readers[id(module)] = _outside_linear(module, rows)
            else:
                self._readers[id(module)] = _OutsideRows(module, rows)

    @contextmanager
    def held(self, part: nn.Module) -> Iterator[None]:
        """Within the block, all matrices of a part of the model are in memory, to be read and to be changed."""
        with ExitStack() as stack:
            for module in part.modules():
                reader = self._readers.get(id(module))
                if isinstance(reader, Outside):
                    reader.hold()
                    stack.callback(reader.release)
            yield


def places(model: nn.Module) -> dict[str, list[tuple[Any, str]]]:
    """Name of each parameter → all (module, attribute) that are this parameter; every alias is a name."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    found: dict[str, list[tuple[Any, str]]] = {}
    for aliases in names.values():
        held = [(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in aliases]
        found.update(dict.fromkeys(aliases, held))
    return found


def constant(value: FloatArray) -> nn.Parameter:
    """A parameter holding `value`, without a copy where that is possible."""
    import torch
    from torch import nn

    whole = np.ascontiguousarray(value).reshape(np.shape(value))
    return nn.Parameter(torch.from_numpy(whole if whole.flags.writeable else whole.copy()), requires_grad=False)


def absent(shape: torch.Size) -> nn.Parameter:
    """A parameter of a shape that takes no memory; whoever computes with it gets NaN."""
    import torch
    from torch import nn

    return nn.Parameter(torch.full((1,), torch.nan).expand(shape), requires_grad=False)


def _beyond(
    model: nn.Module, budget: Budget, found: dict[str, list[tuple[Any, str]]], row_by_row: bool
) -> Iterator[str]:
    """The parameters that do not fit, under all their names, in the model's order."""
    from torch import nn

    parameters = dict(model.named_parameters())
    buffers = sum(_bytes(buffer) for buffer in model.buffers() if buffer.device.type != "meta")
    left = budget.of(sum(parameter.numel() for parameter in parameters.values())) - buffers
    movable = []
    for name, parameter in parameters.items():
        held = [module for module, leaf in found[name] if leaf == "weight"]
        rows = [module for module in held if isinstance(module, nn.Embedding)]
        plain = len(held) == len(found[name]) and all(_is_linear(one) or one in rows for one in held)
        if plain and (row_by_row or not rows):
            movable.append(name)
        else:
            left -= _bytes(parameter)
    for name in movable:
        if (size := _bytes(parameters[name])) <= left:
            left -= size
        else:
            yield from (alias for alias, held in found.items() if held is found[name])


def _bytes(tensor: torch.Tensor) -> int:
    return 4 * tensor.numel()


def _is_linear(module: object) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear)


def _outside_linear(module: Any, rows: Rows) -> Outside:
    made = Outside(module, rows)
    if _bytes(module.weight) <= WHOLE_BYTES:
        module.register_forward_pre_hook(made.hold)
        module.register_forward_hook(made.release, always_call=True)
    return made


class _OutsideRows:
    """Lets an embedding look up the rows that it is asked for in a table of just those rows."""

    def __init__(self, module: Any, rows: Rows) -> None:
        self.rows = rows
        module.padding_idx = None  # matters to gradients only, and need not be a row of the small table
        self._absent = module.weight = absent(module.weight.shape)
        module.register_forward_pre_hook(self._fetch)
        module.register_forward_hook(self._forget, always_call=True)

    def _fetch(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        ids, places = inputs[0].unique(return_inverse=True)
        module.weight = constant(np.concatenate([self.rows(one, one + 1) for one in ids.tolist()]))
        return (places, *inputs[1:])

    def _forget(self, module: Any, *_: object) -> None:
        module.weight = self._absent


def in_parts(module: Any, readers: dict[int, Any]) -> None:
    """Let a linear layer multiply by a few rows of its matrix at a time."""
    import torch
    from torch.nn import functional

    here = weakref.ref(module)
    outputs, inputs = module.weight.shape
    step = max(64, PART_BYTES // (4 * inputs) // 64 * 64)

    def product(x: torch.Tensor) -> torch.Tensor:  # [..., I] -> [..., O]
        owner: Any = here()
        reader: Any = readers.get(id(owner))
        bias, parts = owner.bias, []
        inside = reader is None or reader.present
        for begin in range(0, outputs, step):
            end = min(begin + step, outputs)
            weight = owner.weight[begin:end] if inside else constant(reader.rows(begin, end))
            parts.append(functional.linear(x, weight, None if bias is None else bias[begin:end]))
        return torch.cat(parts, dim=-1)

    setattr(module, "product" if hasattr(module, "product") else "forward", product)
