"""ROUGE-L and chrF of single answers, and how sure a mean over few items is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 20_261_124

Score = Callable[[str, str], float]
"""``score(answer, reference)``, 0 to 100."""


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval, which is None when there is only one cluster to draw from."""

    mean: float
    low: float | None
    high: float | None


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of stemmed English words, 0 to 100."""
    return 100.0 * float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def chrf(answer: str, reference: str) -> float:
    """chrF2 of one sentence, 0 to 100: agreement of character sequences, right for inflected languages."""
    return float(_chrf().sentence_score(answer, [reference]).score)


METRICS: dict[str, tuple[str, Score]] = {"summarize": ("ROUGE-L", rouge_l), "translate": ("chrF", chrf)}
"""By task: the metric's name and how an answer is scored."""


def signatures() -> dict[str, str]:
    """What exactly was computed: with it anybody can repeat the figures."""
    return {
        "ROUGE-L": f"rouge-score {version('rouge-score')}, rougeL F-measure, stemmed, mean over items",
        "chrF": f"sacrebleu {version('sacrebleu')}, {_chrf().get_signature()}, mean over sentences",
        "interval": f"percentile bootstrap over texts, {RESAMPLES} resamples, {CONFIDENCE:.0%}, paired for differences",
    }


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    metric.num_refs = 1  # the signature says how many references each answer had
    return metric


def bootstrap(values: Sequence[float], clusters: Sequence[str]) -> Interval:
    """The mean of `values` and its percentile interval, resampling whole clusters.

    For a difference between two systems give the differences item by item (a paired bootstrap). The seed is fixed: the
    same answers give the same interval. Raises ValueError when there are no values.
    """
    if not values:
        raise ValueError("there is nothing to average")
    order = sorted(set(clusters))
    position = {name: number for number, name in enumerate(order)}
    index = np.array([position[name] for name in clusters])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(index).astype(np.float64)
    mean = float(sums.sum() / counts.sum())
    if len(order) < 2:
        return Interval(mean, None, None)
    drawn = np.random.default_rng(SEED).integers(len(order), size=(RESAMPLES, len(order)))
    means: npt.NDArray[np.float64] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(mean, float(low), float(high))
