"""The best asymmetric 4-bit grid for each block of a matrix: value ≈ scale × code + shift, codes −8…7.

For each block several scales are tried, with the block's range cut into 8 to 18 steps, and the one with the smallest
(weighted) squared error wins. Ranges of fewer than 15 steps look wasteful and are what *keeps a source's own grid*: a
block that was stored in 4 bits before (GGUF's Q4 types, GPTQ, AWQ) lies on at most 16 equidistant values, and the
number of steps at which the error vanishes finds them again.

Shape legend: O outputs, I inputs, G = I / group_size blocks per row, N blocks at once, g values of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .contracts import FloatArray
from .rows import VALUES_AT_ONCE, row_slices
from .weights import QuantizedTensor, Shifts, representable_scales

if TYPE_CHECKING:
    import torch

LOWEST, HIGHEST = -8, 7
STEPS = (15.0, 14.0, 13.0, 12.0, 11.0, 10.0, 9.0, 8.0, 16.0, 17.0, 18.0)
"""Into how many steps a block's range is cut. More than 15 clips the extremes, for finer steps in between."""
LARGEST_OFFSET = 256.0
"""A shift is at most so many steps: Core ML keeps shifts in steps, as float16."""
ON_GRID = 0.1
"""RMS error in steps below which a matrix is said to lie on a 4-bit grid already; rounding anything else gives 0.29."""


@dataclass(frozen=True)
class Grid:
    """Scales float32 ``[O, G]`` and shifts of a matrix, before codes are chosen."""

    scales: FloatArray
    shifts: Shifts

    @property
    def moved(self) -> FloatArray:
        """The shifts as float32 ``[O, G]``."""
        return self.shifts.dequantize()


def fit(weight: FloatArray, group_size: int, importance: FloatArray | None = None) -> Grid:
    """The best grid for every block of `weight` ``[O, I]``; `importance` ``[I]`` weighs the squared errors."""
    import torch

    outputs, inputs = weight.shape
    blocks = torch.from_numpy(np.ascontiguousarray(weight)).reshape(-1, group_size)
    per_row = inputs // group_size
    weights = None if importance is None else torch.from_numpy(importance).reshape(-1, group_size)
    chunk = max(1, VALUES_AT_ONCE // inputs) * per_row
    scales, shifts = [], []
    for start in range(0, len(blocks), chunk):
        part = blocks[start : start + chunk]
        scale, shift = _best(part, None if weights is None else weights.repeat(len(part) // per_row, 1))
        scales.append(scale)
        shifts.append(shift)
    return grid(
        torch.cat(scales).reshape(outputs, per_row).numpy(), torch.cat(shifts).reshape(outputs, per_row).numpy()
    )


def grid(scales: FloatArray, shifts: FloatArray, shift_scales: FloatArray | None = None) -> Grid:
    """The nearest grid that every runtime holds, for wanted scales and shifts ``[O, G]``."""
    if shift_scales is None:
        shift_scales = shift_scales_for(shifts)
    codes = np.clip(np.rint(shifts / shift_scales), -127, 127).astype(np.int8)
    kept = Shifts(codes, shift_scales)
    return Grid(representable_scales(np.maximum(scales, np.abs(kept.dequantize()) / LARGEST_OFFSET)), kept)


def shift_scales_for(shifts: FloatArray) -> FloatArray:
    """One scale per row ``[O, 1]`` for int8 codes of shifts ``[O, G]``."""
    largest = np.abs(shifts).max(axis=1, keepdims=True)
    result: FloatArray = np.maximum(largest / np.float32(127.0), np.float32(2.0**-24)).astype(np.float32)
    return result


def round_to_grid(weight: FloatArray, grid: Grid) -> QuantizedTensor:
    """Each value of `weight` ``[O, I]`` to the nearest point of its block's grid."""
    codes, moved = np.empty(weight.shape, np.int8), grid.moved
    for rows in row_slices(weight.shape):
        scales = grid.scales[rows]
        grouped = weight[rows].reshape(*scales.shape, -1)
        steps = np.rint((grouped - moved[rows][:, :, None]) / scales[:, :, None])
        codes[rows] = np.clip(steps, LOWEST, HIGHEST).reshape(len(scales), -1)
    return QuantizedTensor(codes, grid.scales, 4, grid.shifts)


def lies_on_grid(weight: FloatArray, group_size: int, rows: int = 64) -> bool:
    """Whether the values of each block are at most 16 equidistant ones already; judged by up to `rows` rows."""
    sample = weight[:: max(1, len(weight) // rows)][:rows]
    found = fit(sample, group_size)
    errors = (round_to_grid(sample, found).dequantize() - sample).reshape(*found.scales.shape, -1)
    return bool(np.sqrt(((errors / found.scales[:, :, None]) ** 2).mean()) < ON_GRID)


def _best(blocks: torch.Tensor, importance: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift ``[N]`` of blocks ``[N, g]``."""
    import torch

    low, high = blocks.amin(dim=1), blocks.amax(dim=1)
    best = torch.full_like(low, torch.inf)
    scale, shift = torch.zeros_like(low), torch.zeros_like(low)
    for steps in STEPS:
        step = _representable((high - low) / steps)
        # the lowest value at code −8; when the range is cut finer than 15 steps, both ends are clipped alike
        origin = low - LOWEST * step if steps <= HIGHEST - LOWEST else 0.5 * (low + high + step)
        codes = torch.clamp(torch.round((blocks - origin[:, None]) / step[:, None]), LOWEST, HIGHEST)
        errors = (codes * step[:, None] + origin[:, None] - blocks).square_()
        if steps == STEPS[0] and bool((errors.mean(dim=1) < (ON_GRID * step) ** 2).all()):
            return step, origin  # a source of 4 bits that used its whole range: nothing else to look for
        error = errors.sum(dim=1) if importance is None else (errors * importance).sum(dim=1)
        better = error < best * (1.0 - 1e-3)
        best = torch.where(better, error, best)
        scale, shift = torch.where(better, step, scale), torch.where(better, origin, shift)
    return scale, shift


def _representable(scales: torch.Tensor) -> torch.Tensor:
    """As `weights.representable_scales`, for the range of weights."""
    import torch

    return scales.to(torch.bfloat16).to(torch.float32).clamp_min(2.0**-17)
