"""The figures of the proof, from logits. Shapes: logits float32 ``[N, V]``, N positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .contracts import FloatArray


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities ``[N, V]``."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def kl_nats(expected: FloatArray, actual: FloatArray) -> FloatArray:
    """Kullback-Leibler divergence KL(expected ‖ actual) of each position, in nats: ``[N]``."""
    p, q = log_softmax(expected), log_softmax(actual)
    result: FloatArray = np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0)
    return result


def top1_agreement(expected: FloatArray, actual: FloatArray) -> float:
    """Share of positions whose most likely token is the same."""
    return float((expected.argmax(axis=-1) == actual.argmax(axis=-1)).mean())


def perplexity(logits: FloatArray, next_ids: npt.NDArray[Any]) -> float:
    """exp of the mean negative log-likelihood of `next_ids` ``[N]``."""
    chosen = np.take_along_axis(log_softmax(logits), next_ids[:, None].astype(np.int64), axis=-1)
    return float(np.exp(-chosen.mean()))


def relative_error(expected: FloatArray, actual: FloatArray) -> float:
    """‖actual − expected‖ ÷ ‖expected‖ over all elements."""
    return float(np.linalg.norm(actual - expected) / max(float(np.linalg.norm(expected)), 1e-30))


def margin_changes(expected: FloatArray, actual: FloatArray) -> FloatArray:
    """Change of the gap between the two likeliest tokens of `expected`, in logits, at each position ``[N]``."""
    best = np.argpartition(-expected, 1, axis=-1)[:, :2]
    gaps = [np.diff(np.take_along_axis(logits, best, axis=-1), axis=-1)[:, 0] for logits in (expected, actual)]
    result: FloatArray = np.abs(gaps[1] - gaps[0])
    return result


@dataclass(frozen=True)
class Agreement:
    """Two models at each of N positions: divergence in nats, whether the likeliest token is the same, margin's change.

    `surprise`: the second model's −log p of the token that follows, in nats, where one does.
    """

    kl_nats: FloatArray
    same: FloatArray
    margins: FloatArray
    surprise: FloatArray

    @classmethod
    def of(cls, expected: FloatArray, actual: FloatArray, next_ids: npt.NDArray[Any]) -> Agreement:
        """Compare logits ``[N, V]``; `next_ids` ``[N]`` or one fewer."""
        known = len(next_ids)
        chosen = np.take_along_axis(log_softmax(actual[:known]), next_ids[:, None].astype(np.int64), axis=-1)[:, 0]
        same = (expected.argmax(axis=-1) == actual.argmax(axis=-1)).astype(np.float32)
        return cls(kl_nats(expected, actual), same, margin_changes(expected, actual), -chosen)

    @classmethod
    def joined(cls, parts: Sequence[Agreement]) -> Agreement:
        """Several batches as one."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def margin(self) -> float:
        """99th percentile of the margin's change."""
        return float(np.quantile(self.margins, 0.99))

    @property
    def perplexity(self) -> float:
        """Of the second model on the text."""
        return float(np.exp(self.surprise.mean()))
