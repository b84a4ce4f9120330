"""What a PyTorch model says to a prompt: the reference that an engine's greedy text is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .contracts import FloatArray, KvCache
from .prooftext import GREEDY_TOKENS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Prompts:
    """Prompts as token ids, what ends an answer, and `drafts`: what a similar model has said, or nothing."""

    ids: list[list[int]]
    stops: tuple[int, ...]
    drafts: Sequence[list[int]] = ()


@dataclass
class Continuation:
    """A prompt continued greedily: ids, the gap between the best two logits at each, and the first logits ``[V]``."""

    ids: list[int]
    margins: list[float]
    first_logits: FloatArray

    def take(self, logits: torch.Tensor) -> int:
        """Add the best token of ``[V]``; gives it."""
        values, best = logits.topk(2)
        if not self.ids:
            self.first_logits = logits.numpy().copy()
        self.margins.append(float(values[0] - values[1]))
        self.ids.append(int(best[0]))
        return self.ids[-1]


def continuations(model: PreTrainedModel, prompts: Prompts, kept: KvCache) -> list[Continuation]:
    """Each prompt continued up to GREEDY_TOKENS tokens or a stop token, with a cache that is kept so."""
    drafts = prompts.drafts or [[]] * len(prompts.ids)
    return [_greedy(model, ids, prompts.stops, kept, draft) for ids, draft in zip(prompts.ids, drafts, strict=True)]


def _greedy(
    model: PreTrainedModel, prompt: list[int], stops: tuple[int, ...], kept: KvCache, draft: list[int]
) -> Continuation:
    """What the model has to say to a whole draft it says in one pass, as in speculative decoding (Leviathan et al.
    2023, arXiv:2211.17192); from the first token on that it says otherwise, it continues alone.
    """
    import torch

    from .reference.kvcache import new_cache

    said = Continuation([], [], np.empty(0, np.float32))
    ahead, cache = draft[:-1], new_cache(kept)
    step = [*prompt, *ahead]
    while True:
        rows = model(
            torch.tensor([step]), past_key_values=cache, use_cache=True, logits_to_keep=len(ahead) + 1
        ).logits[0].float()  # fmt: skip
        for row, drafted in zip(rows, [*ahead, None], strict=True):
            token = said.take(row)
            if token in stops or len(said.ids) == GREEDY_TOKENS:
                return said
            if drafted is not None and token != drafted:
                cache, ahead = new_cache(kept), []  # the old one holds what was not said
                step = [*prompt, *said.ids]
                break
        else:
            step, ahead = [token], []
