"""One matrix rounded column by column, each column's error made good in those that follow (GPTQ, arXiv:2210.17323).

What is minimized is the error of the layer's *outputs* on calibration inputs x: ‖(W − Ŵ)x‖². Its Hessian is the second
moment of the inputs. The grid of a block is fitted when its turn comes, to the weights as they are by then.

Shape legend: O outputs, I inputs, g = group size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import blocks
from .contracts import FloatArray
from .weights import QuantizedTensor, Shifts

if TYPE_CHECKING:
    import torch

DAMPING = 0.1
"""Of the mean squared input, added to every channel's: how little the calibration text is believed."""
SHIFT_ROOM = 1.1
"""Shifts of later blocks may grow by so much through the errors they take over."""


def gptq(weight: FloatArray, moments: FloatArray, group_size: int) -> QuantizedTensor:
    """Quantize `weight` ``[O, I]`` to 4 bits in asymmetric blocks; `moments` ``[I, I]`` is the mean of x xᵀ."""
    import torch

    importance = np.ascontiguousarray(np.diag(moments)) + DAMPING * float(np.diag(moments).mean()) + 1e-12
    feedback = _feedback(moments)
    left = torch.from_numpy(weight.copy())
    whole = blocks.fit(weight, group_size, importance)
    shift_scales = blocks.shift_scales_for(whole.moved * np.float32(SHIFT_ROOM))
    codes, scales, shifts = [], [], []
    for start in range(0, weight.shape[1], group_size):
        end = start + group_size
        fitted = blocks.fit(left[:, start:end].numpy(), group_size, importance[start:end])
        grid = blocks.grid(fitted.scales, fitted.moved, shift_scales)
        block_codes, errors = _round_block(left[:, start:end], grid, feedback[start:end, start:end])
        left[:, end:] -= errors @ feedback[start:end, end:]
        codes.append(block_codes.numpy().astype(np.int8))
        scales.append(grid.scales)
        shifts.append(grid.shifts.codes)
    kept = Shifts(np.concatenate(shifts, axis=1), shift_scales)
    return QuantizedTensor(np.concatenate(codes, axis=1), np.concatenate(scales, axis=1), 4, kept)


def _feedback(moments: FloatArray) -> torch.Tensor:
    """Upper Cholesky factor ``[I, I]`` of the inverse of the damped Hessian: how errors spread to later columns."""
    import torch

    hessian = torch.from_numpy(moments).double()
    mean = float(hessian.diagonal().mean())
    hessian.diagonal().add_(DAMPING * mean if mean > 0.0 else 1.0)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return factor


def _round_block(block: torch.Tensor, grid: blocks.Grid, feedback: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes ``[O, g]`` of one block, and the errors ``[O, g]`` that later blocks take over."""
    import torch

    rest, codes, errors = block.clone(), torch.empty_like(block), torch.empty_like(block)
    scale, shift = torch.from_numpy(grid.scales)[:, 0], torch.from_numpy(grid.moved)[:, 0]
    for column in range(block.shape[1]):
        wanted = rest[:, column]
        code = torch.clamp(torch.round((wanted - shift) / scale), blocks.LOWEST, blocks.HIGHEST)
        error = (wanted - code * scale - shift) / feedback[column, column]
        rest[:, column + 1 :] -= error[:, None] * feedback[column, column + 1 :]
        codes[:, column], errors[:, column] = code, error
    return codes, errors
