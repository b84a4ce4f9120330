"""Outliers moved from activations into weights, before anything is rounded (SmoothQuant, arXiv:2211.10438).

Where a norm, or a linear layer whose outputs are only multiplied element by element, feeds linear layers, channel j may
be divided by s[j] on one side and multiplied by s[j] on the other without changing the model. s is chosen so that
channels with large activations become smaller: s = max|x|**a / max|w|**(1 − a), with a mean of 1 over the channels.
Nothing is added to the graph; all targets carry the same smoothed weights.

A source whose weights already lie on a 4-bit grid would lose it that way: a block's values were equidistant, and after
a scale for each channel they are not. There one s serves a whole block of channels, which a block's own scale takes up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .contracts import FloatArray
from .families import Family
from .reference.eager import read_ids
from .reference.rowreader import rows_of
from .watch import last_answer

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

SMALLEST = 1e-5


def largest_inputs(model: PreTrainedModel, sequences: list[list[int]]) -> dict[str, FloatArray]:
    """max|x| of each input channel ``[I]`` of every linear layer, by module name, while `model` reads `sequences`."""
    import torch
    from torch import nn

    largest: dict[str, FloatArray] = {}

    @last_answer
    def magnitudes(states: torch.Tensor) -> FloatArray:
        rows = states.reshape(-1, states.shape[-1])
        found: FloatArray = torch.maximum(rows.amax(dim=0), -rows.amin(dim=0)).numpy()
        return found

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def note(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            here = magnitudes(inputs[0])
            largest[name] = np.maximum(largest[name], here) if name in largest else here

        return module.register_forward_pre_hook(note)

    handles = [watch(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    try:
        with torch.inference_mode():
            for ids in sequences:
                read_ids(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    return largest


class Smoothed(Mapping[str, FloatArray]):
    """The tensors of a checkpoint with scales folded in as they are read, one at a time."""

    def __init__(self, tensors: Mapping[str, FloatArray], norm_offset: float = 0.0) -> None:
        self._tensors = tensors
        self._norm_offset = np.float32(norm_offset)
        self._columns: dict[str, FloatArray] = {}
        self._rows: dict[str, FloatArray] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> FloatArray:
        return self._folded(name, self._tensors[name], slice(None))

    def rows(self, name: str, begin: int, end: int) -> FloatArray:
        """Rows `begin` to `end` of one of them."""
        return self._folded(name, rows_of(self._tensors, name, begin, end), slice(begin, end))

    def _folded(self, name: str, value: FloatArray, here: slice) -> FloatArray:
        """What some rows of a parameter become."""
        if (columns := self._columns.get(name)) is not None:
            value = value * columns
        if (scales := self._rows.get(name)) is not None:
            rows = scales[here]
            if value.ndim == 1 and "norm" in name:  # what is multiplied with is the weight and the offset
                return (value + self._norm_offset) / rows - self._norm_offset
            value = value / (rows[:, None] if value.ndim == 2 else rows)
        return value

    def largest_weights(self, takers: tuple[str, ...]) -> FloatArray:
        """max|w| over all modules `takers` of each input channel ``[I]``."""
        found: FloatArray = np.max([np.abs(self[f"{taker}.weight"]).max(axis=0) for taker in takers], axis=0)
        return found

    def fold(self, giver: str, takers: tuple[str, ...], scales: FloatArray) -> None:
        """Divide the outputs of module `giver` by scales, multiply the inputs of modules `takers` by them."""
        for name in (f"{giver}.weight", f"{giver}.bias"):
            if name in self._tensors:
                self._rows[name] = scales
        for taker in takers:
            self._columns[f"{taker}.weight"] = scales


def scales_of(inputs: FloatArray, weights: FloatArray, strength: float) -> FloatArray:
    """s of each channel ``[I]`` from max|x| and max|w| ``[I]``; their geometric mean is 1."""
    scales = np.maximum(inputs, SMALLEST) ** strength / np.maximum(weights, SMALLEST) ** (1.0 - strength)
    result: FloatArray = (scales / np.exp(np.log(scales).mean())).astype(np.float32)
    return result


def block_scales_of(inputs: FloatArray, strength: float, block: int) -> FloatArray:
    """s of each channel ``[I]`` from max|x| ``[I]``, the same within each `block` channels; geometric mean 1.

    The weights' own size does not matter: every block has a scale of its own.
    """
    scales = np.maximum(inputs.reshape(-1, block).max(axis=1), SMALLEST) ** strength
    result: FloatArray = np.repeat(scales / np.exp(np.log(scales).mean()), block).astype(np.float32)
    return result


def smooth(
    tensors: Mapping[str, FloatArray],
    largest: Mapping[str, FloatArray],
    family: Family,
    layers: int,
    strength: float,
    block: int | None = None,
) -> Smoothed:
    """`tensors` with the family's foldable places smoothed in every layer.

    `largest` is `largest_inputs`' result; `strength` is a, 0 (weights only) to 1 (activations only); with `block`, so
    many neighbouring channels share their s.
    """
    smoothed = Smoothed(tensors, family.norm_offset)
    for layer in range(layers):
        home = f"{family.layers}.{layer}"
        for giver, takers in family.feeds.items():
            # layers that share keys and values with another have no projections of their own
            names = tuple(name for name in (f"{home}.{taker}" for taker in takers) if f"{name}.weight" in tensors)
            inputs = largest[names[0]]
            if block and len(inputs) % block:
                continue
            scales = (
                block_scales_of(inputs, strength, block)
                if block
                else scales_of(inputs, smoothed.largest_weights(names), strength)
            )
            smoothed.fold(f"{home}.{giver}", names, scales)
    return smoothed
