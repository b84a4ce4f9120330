"""Figures of two sets of answers. Shape legend: N texts, E numbers of an answer, P pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contracts import FloatArray
from ..heads import Head
from ..metrics import kl_nats
from .spans import HIDDEN

Figures = npt.NDArray[Any]
"""One float per text, mostly float64."""


@dataclass(frozen=True)
class Comparison:
    """Two models' answers to N texts.

    Attributes:
        distances: of each text: 1 − cosine of the vectors, or the KL divergence of the labels in nats.
        errors: of each text: the largest difference of any number, in parts of the expected answer's largest.
        agrees: of each text: whether the labels chosen are the same (vectors: always); of tags: the share of tokens.
    """

    distances: Figures
    errors: Figures
    agrees: Figures

    @classmethod
    def of(cls, expected: FloatArray, actual: FloatArray, head: Head) -> Comparison:
        """Compare answers ``[N, E]``."""
        sizes = np.where(expected > HIDDEN / 2, np.abs(expected), 0.0)
        errors = np.abs(actual - expected).max(axis=-1) / np.maximum(sizes.max(axis=-1), 1e-9)
        if head.task == "embed":
            return cls(1.0 - cosines(expected, actual), errors, np.ones(len(expected), np.float32))
        same = chosen(expected, head) == chosen(actual, head)
        same = over_tokens(same, expected, head) if head.task == "tag" else same.all(axis=-1)
        return cls(divergences(expected, actual, head), errors, same.astype(np.float32))

    @property
    def distance(self) -> float:
        """Mean over the texts."""
        return float(self.distances.mean())

    @property
    def worst(self) -> float:
        """The largest error of any number of any text; NaN counts."""
        return float(self.errors.max())

    @property
    def agreement(self) -> float:
        """Share of texts whose labels are the same; of tags: the mean over texts."""
        return float(self.agrees.mean())

    def figures(self) -> dict[str, Any]:
        """For the report."""
        return {
            "texts": len(self.distances),
            "distance": self.distance,
            "distance_max": float(self.distances.max()),
            "largest_error": self.worst,
            "agreement": self.agreement,
            "distances": [float(f"{value:.3g}") for value in self.distances],
        }


def cosines(one: FloatArray, other: FloatArray) -> Figures:
    """Cosine of each pair of rows ``[N]``, in float64: 1 − cosine of nearly equal rows drowns in float32."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.asarray((a * b).sum(axis=-1) / np.maximum(lengths, 1e-30))


def probabilities(logits: FloatArray, head: Head) -> Figures:
    """Of each label ``[N, E]``: one softmax, or a sigmoid each."""
    wide = logits.astype(np.float64)
    if head.many:
        return np.asarray(1.0 / (1.0 + np.exp(-wide)))
    grown = np.exp(wide - wide.max(axis=-1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=-1, keepdims=True))


def chosen(logits: FloatArray, head: Head) -> Any:
    """What is answered ``[N, 1]`` (the likeliest label), ``[N, E]`` (whether each label holds), ``[N, 2]`` (a span's
    first and last token) or ``[N, T]`` (the likeliest label of each token)."""
    if head.task == "tag":
        return logits.reshape(len(logits), -1, head.size).argmax(axis=-1)
    if head.task == "answer":
        return logits.reshape(len(logits), 2, -1).argmax(axis=-1)
    return logits > 0.0 if head.many else logits.argmax(axis=-1)[:, None]


def divergences(expected: FloatArray, actual: FloatArray, head: Head) -> Figures:
    """KL of the label distributions of each text ``[N]``; the mean over labels where each has its own, over the
    beginning and the end of a span, and over tokens where each has a label."""
    if head.task == "tag":
        tokens = [logits.reshape(len(logits), -1, head.size) for logits in (expected, actual)]
        return over_tokens(kl_nats(tokens[0], tokens[1]), expected, head)
    if head.task == "answer":
        halves = [logits.reshape(len(logits), 2, -1) for logits in (expected, actual)]
        return np.asarray(kl_nats(halves[0], halves[1]).mean(axis=-1))
    if not head.many:
        return kl_nats(expected, actual)
    each = [np.stack([logits, np.zeros_like(logits)], axis=-1) for logits in (expected, actual)]
    return np.asarray(kl_nats(each[0], each[1]).mean(axis=-1))


def over_tokens(values: Any, expected: FloatArray, head: Head) -> Figures:
    """The mean of `values` ``[N, T]`` over those tokens of each text that are not HIDDEN in the `expected` tags."""
    shown = expected.reshape(len(expected), -1, head.size)[:, :, 0] > HIDDEN / 2
    return np.asarray((values * shown).sum(axis=-1) / shown.sum(axis=-1))


def found(questions: FloatArray, passages: FloatArray) -> int:
    """How many of P questions have their own passage, row by row, as the nearest one."""
    near = similarities(questions, passages)
    return int((near.argmax(axis=-1) == np.arange(len(near))).sum())


def similarities(one: FloatArray, other: FloatArray) -> FloatArray:
    """Cosine of every row of `one` with every row of `other` ``[P, P]``."""
    a, b = (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-30) for rows in (one, other))
    return np.asarray(a @ b.T)


def correlation(one: FloatArray, other: FloatArray) -> float:
    """Pearson's, of two sets of similarities."""
    return float(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1])
