"""Small tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from kobako.pipeline.embeddings import TableLayout
from kobako.pipeline.weights import WeightTensor, round_to_nearest


def layout_of(rows: int = 300, layers: int = 3, width: int = 16, bits: Any = 8, **other: Any) -> TableLayout:
    told = {"model": "tiny", "parameter": "model.embed_tokens_per_layer.weight", "multiplier": 4.0}
    return TableLayout(rows=rows, layers=layers, width=width, bits=bits, **{**told, **other})


def values_of(layout: TableLayout, seed: int = 0) -> WeightTensor:
    """Random rows of a layout, quantized as the pipeline does it."""
    scale = 10.0 ** np.random.default_rng(seed + 1).uniform(-3, 3, (layout.rows, layout.layers, 1))
    random = np.random.default_rng(seed).standard_normal((layout.rows, layout.layers, layout.width)) * scale
    flat = random.astype(np.float32).reshape(layout.rows, -1)
    return flat.astype(np.float16) if layout.bits == 16 else round_to_nearest(flat, layout.bits, layout.width)


def in_blocks(layout: TableLayout, size: int = 128) -> Iterator[WeightTensor]:
    """The same rows, `size` at once."""
    from kobako.pipeline.weights import QuantizedTensor

    whole = values_of(layout)
    for begin in range(0, layout.rows, size):
        part = slice(begin, begin + size)
        if isinstance(whole, QuantizedTensor):
            yield QuantizedTensor(whole.codes[part], whole.scales[part], whole.bits)
        else:
            yield whole[part]
