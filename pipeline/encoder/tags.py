"""Answers that label every word of a text: names of people and places, parts of speech.

An artifact gives ``[T · L]`` for T tokens, the L labels of the first token first. A word has the label of its first
token, as such models are trained. Words with the same label that follow each other are one tag; where labels are
written B-X and I-X, B- begins another one. A word labelled O has no tag.

Shape legend: T tokens, L labels, C tokens of the context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..contracts import FloatArray
from ..heads import Head
from ..tokens import Placed
from .compare import probabilities

OUTSIDE, BEGINS, INSIDE = "O", "B-", "I-"


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Words of a text and their label.

    Attributes:
        text: the words as the text writes them, from character `begin` to before `end`.
        label: without B- and I-.
        share: the mean probability that the model gives each word's label.
    """

    text: str
    label: str
    share: float
    begin: int
    end: int


def tags_of(row: FloatArray, placed: Placed, head: Head) -> tuple[Tag, ...]:
    """The tags of a text in their order; `row` ``[C · L]`` is a settled answer."""
    return tuple(
        Tag(
            text=placed.text[words[0].begin : words[-1].end], label=label, begin=words[0].begin, end=words[-1].end,
            share=sum(one.share for one in words) / len(words),
        )
        for label, words in grouped(words_of(row, placed, head))
    )  # fmt: skip


@dataclass(frozen=True)
class Word:
    """One word, and the label of its first token with its probability."""

    begin: int
    end: int
    label: str
    share: float


def words_of(row: FloatArray, placed: Placed, head: Head) -> list[Word]:
    """Every word of a text with its label."""
    shares = probabilities(row.reshape(-1, head.size), head)
    words: dict[int, Word] = {}
    for place, number in enumerate(placed.words):
        if number is None:  # a special token
            continue
        begin, end = placed.offsets[place]
        if number in words:
            first = words[number]
            words[number] = Word(first.begin, end, first.label, first.share)
        else:
            best = int(shares[place].argmax())
            words[number] = Word(begin, end, head.labels[best], float(shares[place, best]))
    return list(words.values())


def grouped(words: list[Word]) -> Iterator[tuple[str, list[Word]]]:
    """Labels without B- and I-, each with the words that follow each other under it."""
    label, group = "", list[Word]()
    for word in words:
        own = word.label.removeprefix(BEGINS).removeprefix(INSIDE)
        if group and (own != label or word.label.startswith(BEGINS)):
            yield label, group
            group = []
        if word.label != OUTSIDE:
            label = own
            group.append(word)
    if group:
        yield label, group
