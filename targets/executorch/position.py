"""Where the tokens being traced begin, and the masks that follow from it.

Shape legend: S tokens fed at once (dynamic), C slots of the KV cache, F slots that are attended to.
"""

from __future__ import annotations

from typing import Any

import torch

MASKED = -1e30  # not -inf: attention goes block by block, and a block of nothing but -inf gives NaN


class Position:
    """Where the tokens being traced begin: a symbolic integer, shared by cache, attention and position table.

    Masks of sliding windows depend on nothing else: each is made once a call, whatever number of layers uses it.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.start: Any = 0
        self.masks: dict[int, torch.Tensor] = {}

    def begin(self, start: Any) -> None:
        """A new call, whose first token is at `start`."""
        self.start, self.masks = start, {}

    def mask(self, tokens: int, filled: int, window: int | None) -> torch.Tensor:
        """Added to scores, float32 ``[S, F]``: 0 for the last `window` slots up to each token's own, else MASKED.

        `filled` slots are attended to: all C of the cache, or those that hold something by now.
        """
        window = window or self.slots
        if window not in self.masks:
            own = torch.arange(tokens)[:, None] + self.start
            slot = torch.arange(self.slots)[None]
            seen = (slot <= own) & (slot > own - window)
            self.masks[window] = torch.where(seen, 0.0, MASKED)
        whole = self.masks[window]
        everything = isinstance(filled, int) and filled == self.slots
        return whole if everything else whole.narrow(1, 0, filled)
