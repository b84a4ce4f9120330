"""Answers that are a span of a passage: for each token a logit that the span begins there, and one that it ends there.

An artifact gives ``[2 · T]`` for T tokens, beginnings first. Here every answer gets the length of the artifact's
context, HIDDEN where no token is, so that answers to texts of all lengths are rows of one array.

Answers that label every token (`tags`) are settled here too.

Shape legend: T tokens, C tokens of the context, L labels, N texts.
"""

from __future__ import annotations

import numpy as np

from ..contracts import FloatArray
from ..heads import Head
from ..tokens import Pair

HIDDEN = -10000.0
"""A logit whose exp() is 0."""
LONGEST_SPAN = 30
"""Tokens of an answer at most: the usual limit of question answering."""


def settled(values: FloatArray, tokens: int, context_tokens: int, head: Head) -> FloatArray:
    """An artifact's numbers as a row ``[2 · C]`` of a span's ends or ``[C · L]`` of tags, those behind the text's
    `tokens` hidden; other heads' unchanged."""
    if head.task == "tag":
        labels = np.full((context_tokens, head.size), HIDDEN, np.float32)
        labels[:tokens] = values.reshape(-1, head.size)[:tokens]
        return labels.reshape(-1)
    if head.task != "answer":
        return values
    row = np.full((2, context_tokens), HIDDEN, np.float32)
    row[:, :tokens] = values.reshape(2, -1)[:, :tokens]
    return row.reshape(-1)


def best_span(row: FloatArray, pair: Pair) -> tuple[str, float]:
    """The likeliest span of the passage, as it is written there, and its share of all spans that could be.

    `row` is a settled answer; a span lies in the passage, ends where it begins or later, and has LONGEST_SPAN tokens.
    """
    places = [index for index, part in enumerate(pair.parts) if part == 1]
    begins, ends = (half[places].astype(np.float64) for half in row.reshape(2, -1))
    scores = begins[:, None] + ends[None]
    index = np.arange(len(places))
    length = index[None] - index[:, None]
    scores[(length < 0) | (length >= LONGEST_SPAN)] = -np.inf
    shares = np.exp(scores - scores.max())
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    begin, end = pair.offsets[places[first]][0], pair.offsets[places[last]][1]
    return pair.passage[begin:end], float(shares.max() / shares.sum())
