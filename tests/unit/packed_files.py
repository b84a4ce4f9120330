"""Packers of quantized checkpoints, written out value by value from the formats' descriptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
AWQ_NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)


def grid(outputs: int, inputs: int, group: int, bits: int = 4, seed: int = 0) -> tuple[Array, Array, Array]:
    """Codes ``[I, O]``, zeros ``[G, O]`` and float16 scales ``[G, O]`` of a random matrix."""
    random = np.random.default_rng(seed)
    groups = inputs // group
    codes = random.integers(0, 2**bits, (inputs, outputs))
    zeros = random.integers(1, 2**bits, (groups, outputs))
    return codes, zeros, random.uniform(0.01, 0.05, (groups, outputs)).astype(np.float16)


def weight(codes: Array, zeros: Array, scales: Array, group_of: Array) -> Array:
    """float32 ``[O, I]``: what the packed codes stand for."""
    return ((codes - zeros[group_of]) * scales.astype(np.float32)[group_of]).T.astype(np.float32)


def along_inputs(codes: Array, bits: int = 4) -> Array:
    """GPTQ's qweight int32 ``[I / P, O]``."""
    packed = np.zeros((len(codes) * bits // 32, codes.shape[1]), np.uint32)
    for row, values in enumerate(codes.astype(np.uint32)):
        packed[row * bits // 32] |= values << np.uint32(row * bits % 32)
    return packed.view(np.int32)


def along_outputs(codes: Array, bits: int = 4, order: tuple[int, ...] | None = None) -> Array:
    """GPTQ's qzeros and, with AWQ's `order`, its qweight and qzeros: int32 ``[…, O / P]``."""
    count = 32 // bits
    places = order or tuple(range(count))
    packed = np.zeros((len(codes), codes.shape[1] // count), np.uint32)
    for word in range(packed.shape[1]):
        for nibble, column in enumerate(places):
            packed[:, word] |= codes[:, word * count + column].astype(np.uint32) << np.uint32(nibble * bits)
    return packed.view(np.int32)
