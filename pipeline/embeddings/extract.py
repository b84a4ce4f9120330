"""A checkpoint's table → rows as a recipe stores them, a block at a time.

A table of 2 billion values is never whole in memory, in no number format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..contracts import FloatArray
from ..errors import IntegrityError, UnsupportedRecipe
from ..weights import WeightTensor, round_to_nearest
from .layout import TableLayout

ReadRows = Callable[[int, int], FloatArray]
"""(begin, end) → float32 ``[end − begin, L·D]``."""
VALUES_AT_ONCE = 1 << 22


def quantized_rows(read: ReadRows, layout: TableLayout) -> Iterator[WeightTensor]:
    """All rows in order, rounded to nearest with a scale for each layer of each row.

    Raises IntegrityError for NaN or infinite values, UnsupportedRecipe for what the layout cannot hold.
    """
    if layout.width * layout.bits % 8:
        raise UnsupportedRecipe(
            f"{layout.parameter} has {layout.width} values per layer, which {layout.bits} bits do not pack into bytes.",
            "Try --recipe int8.",
        )
    at_once = max(1, VALUES_AT_ONCE // (layout.layers * layout.width))
    for begin in range(0, layout.rows, at_once):
        values = read(begin, min(begin + at_once, layout.rows))
        if not np.isfinite(values).all():
            raise IntegrityError(
                f"{layout.parameter} holds NaN or infinite values.", "The checkpoint is damaged: fetch it again."
            )
        yield values.astype(np.float16) if layout.bits == 16 else round_to_nearest(values, layout.bits, layout.width)
