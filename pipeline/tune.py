"""Codes of a layer tuned together, by gradients (SignRound, arXiv:2309.05516), after they were chosen one by one.

GPTQ makes each matrix's own outputs right. What counts is what the *layer* says, after attention, activation and the
sum with the residual stream, where errors of different matrices cancel or add up. So the fractional code of each weight
becomes a parameter, rounded in the forward pass and passed through in the backward pass, and moves against the sign of
the gradient of the layer's error. Grids stay as they are. A layer is changed only where text that was not tuned on says
that it got better.

Shape legend: T tokens of a sequence, O outputs, I inputs, G blocks per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .blocks import HIGHEST, LOWEST
from .calibrate import Examples
from .contracts import FloatArray
from .weights import QuantizedTensor

if TYPE_CHECKING:
    import torch

STEPS = 200
RATE = 1.0 / STEPS
"""Of a code per step, falling to 0: a code moves by at most half a step in all."""
EDGE = 0.45
"""How far from its code a weight starts at most; half a step is where the next code begins."""
HELD_OUT = 4
"""Every so many-th sequence decides whether tuning helped, and is not tuned on."""


class Latent:
    """The fractional codes ``[O, I]`` of one matrix on its grid."""

    def __init__(self, value: FloatArray, start: QuantizedTensor) -> None:
        import torch

        assert start.shifts is not None
        self.start = start
        outputs, inputs = value.shape
        self.scales = torch.from_numpy(start.scales)[:, :, None]
        self.moved = torch.from_numpy(start.shifts.dequantize())[:, :, None]
        codes = torch.from_numpy(start.codes.astype(np.float32))
        blocks = torch.from_numpy(value.copy()).reshape(outputs, start.scales.shape[1], -1)
        exact = ((blocks - self.moved) / self.scales).reshape(outputs, inputs)
        self.lowest = (codes - 1.0).clamp_(min=LOWEST)
        self.highest = (codes + 1.0).clamp_(max=HIGHEST)
        self.codes = torch.clamp(exact, codes - EDGE, codes + EDGE).requires_grad_()

    def weight(self) -> torch.Tensor:
        """``[O, I]``: rounded, with the gradient of what is not."""
        rounded = self.codes + (self.codes.detach().round().clamp_(LOWEST, HIGHEST) - self.codes.detach())
        outputs, inputs = rounded.shape
        blocks = rounded.reshape(outputs, self.scales.shape[1], -1)
        return (blocks * self.scales + self.moved).reshape(outputs, inputs)

    def step(self, rate: float) -> None:
        """Against the gradient's sign, at most to the neighbouring codes."""
        gradient = self.codes.grad
        if gradient is None:
            return
        moved = self.codes.data.sub_(gradient.sign_(), alpha=rate)
        moved.copy_(moved.minimum(self.highest).maximum(self.lowest))
        self.codes.grad = None

    def quantized(self) -> QuantizedTensor:
        codes = self.codes.detach().round().clamp_(LOWEST, HIGHEST).numpy().astype(np.int8)
        return replace(self.start, codes=codes)


def tune(
    layer: Any, examples: Examples, floats: Mapping[str, FloatArray], starts: Mapping[str, QuantizedTensor]
) -> dict[str, QuantizedTensor]:
    """Better codes for the matrices of `starts` (name inside `layer` → its tensor), or the same ones.

    `floats`: what they were before rounding. `layer` holds them rounded, and is left as it was.
    """
    import torch

    tuned_on, held_out = parted(examples)
    latents = {name: Latent(floats[name], start) for name, start in starts.items()}
    before = _error(layer, held_out, {})
    order = np.random.default_rng(0).permutation(STEPS) % len(tuned_on.inputs)
    with torch.enable_grad():
        for count, index in enumerate(order):
            weights = {f"{name}.weight": latent.weight() for name, latent in latents.items()}
            loss = _distance(layer, tuned_on, int(index), weights)
            loss.backward()  # type: ignore[no-untyped-call]
            for latent in latents.values():
                latent.step(RATE * (1.0 - count / STEPS))
    found = {name: latent.quantized() for name, latent in latents.items()}
    weights = {f"{name}.weight": torch.from_numpy(tensor.dequantize()) for name, tensor in found.items()}
    return found if _error(layer, held_out, weights) < before else dict(starts)


def parted(examples: Examples) -> tuple[Examples, Examples]:
    """Those to tune on, and those held out."""
    everything = range(len(examples.inputs))
    return _chosen(examples, [i for i in everything if i % HELD_OUT]), _chosen(examples, everything[::HELD_OUT])


def _chosen(examples: Examples, indices: Sequence[int]) -> Examples:
    return Examples(
        [examples.inputs[i] for i in indices],
        [examples.wanted[i] for i in indices],
        [examples.calls[i] for i in indices],
    )


def _error(layer: Any, examples: Examples, weights: Mapping[str, torch.Tensor]) -> float:
    sums = [float(_distance(layer, examples, index, weights)) for index in range(len(examples.inputs))]
    return sum(sums) / len(sums)


def _distance(layer: Any, examples: Examples, index: int, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean over tokens of the squared error of what the layer says, relative to the size of what it should say.

    Relative, since a few tokens have states a thousand times larger than all others, which norms take away again.
    """
    from torch.func import functional_call

    call, wanted = examples.calls[index], examples.wanted[index]
    output = functional_call(layer, dict(weights), (examples.inputs[index], *call.others), dict(call.named))
    said = output[0] if isinstance(output, tuple) else output
    error = (said - wanted).square().mean(-1) / wanted.square().mean(-1)
    result: torch.Tensor = error.mean()
    return result
