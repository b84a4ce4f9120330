"""For those who watch what linear layers read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

Answer = TypeVar("Answer")


def last_answer(compute: Callable[[torch.Tensor], Answer]) -> Callable[[torch.Tensor], Answer]:
    """`compute`, but not again for the very tensor that it was last asked for: q, k and v read the same input."""
    last: list[Any] = [None, None]

    def answered(states: torch.Tensor) -> Answer:
        if last[0] is not states:
            last[:] = states, compute(states)
        answer: Answer = last[1]
        return answer

    return answered
