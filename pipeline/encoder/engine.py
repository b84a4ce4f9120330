"""Text in, a vector or labels out: an artifact with the tokenizer that ships beside it, as an app would use them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contracts import Exported, FloatArray
from ..errors import BadArtifact, UsageError
from ..heads import Head
from ..protocols import EncoderRuntime
from ..tokens import ShippedTokenizer, Text
from .compare import probabilities
from .spans import best_span, settled
from .tags import Tag, tags_of

TOLD_TOKENS = 5


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an encoder answers to one text.

    Attributes:
        values: the vector, the logits of the labels, of a span's ends, or of every token's labels; empty for a masked
            word.
        labels: probabilities by label, by token for a masked word, or of the answer's words; the likeliest first;
            empty for a vector and for tags.
        tags: of a text whose words are labelled; otherwise None.
    """

    values: tuple[float, ...]
    labels: Mapping[str, float]
    tokens: int
    seconds: float
    tags: tuple[Tag, ...] | None = None


class TextEncoder:
    """Closes its runtime."""

    def __init__(self, runtime: EncoderRuntime, directory: Path, longest_tokens: int) -> None:
        self._runtime, self._longest = runtime, longest_tokens
        self._tokenizer = ShippedTokenizer(directory)

    @classmethod
    def of(cls, runtime: EncoderRuntime, exported: Exported) -> TextEncoder:
        """The encoder of an artifact."""
        return cls(runtime, exported.directory, exported.context_tokens)

    @property
    def name(self) -> str:
        """What runs it, with its version."""
        return self._runtime.name

    def ids(self, text: Text, head: Head) -> list[int]:
        """Token ids of `text`. Raises UsageError for a text that does not fit: half of it would mean something else."""
        if (head.task == "answer") == isinstance(text, str):
            raise UsageError("this package answers a question on a passage, and nothing else.", "Give both.")
        if not isinstance(text, str):
            ids = self._tokenizer.encode_pair(*text).ids
        else:
            placed = head.task == "tag"
            ids = self._tokenizer.encode_placed(text).ids if placed else self._tokenizer.encode_prompt(text)
        if head.task == "fill-mask" and ids.count(head.mask_id) != 1:
            raise UsageError(
                f"the text has {ids.count(head.mask_id)} masked words.", f"Write {head.mask} for one word."
            )
        if len(ids) > self._longest:
            raise UsageError(
                f"the text has {len(ids)} tokens, the package was built for {self._longest}.",
                "Shorten or divide it, or build the package with a longer --context.",
            )
        return ids

    def read(self, text: Text, head: Head) -> Reading:
        """The answer and how long it took. Raises UsageError, and BadArtifact when it is not what `head` says."""
        ids = self.ids(text, head)
        began = time.perf_counter()
        values = self._runtime.encode(ids, [1] * len(ids))
        seconds = time.perf_counter() - began
        if head.task == "answer" and not isinstance(text, str):
            row = settled(values, len(ids), self._longest, head)
            words, share = best_span(row, self._tokenizer.encode_pair(*text))
            return Reading(values=tuple(map(float, row)), labels={words: share}, tokens=len(ids), seconds=seconds)
        tagging, rows = head.task == "tag", len(values) // head.size
        whole = len(values) == rows * head.size and (rows >= len(ids) if tagging else rows == 1)
        if not whole or (head.task in ("classify", "tag") and len(head.labels) != head.size):
            raise BadArtifact(
                f"the artifact answers with {len(values)} numbers, its package speaks of {head.size} "
                f"and {len(head.labels)} labels.",
                "Pull or build the package again.",
            )
        if tagging and isinstance(text, str):
            row = settled(values, len(ids), self._longest, head)
            tags = tags_of(row, self._tokenizer.encode_placed(text), head)
            return Reading(values=tuple(map(float, row)), labels={}, tokens=len(ids), seconds=seconds, tags=tags)
        return Reading(
            values=() if head.task == "fill-mask" else tuple(float(one) for one in values),
            labels=self._tokens(values, head) if head.task == "fill-mask" else named(values, head),
            tokens=len(ids),
            seconds=seconds,
        )

    def _tokens(self, values: FloatArray, head: Head) -> dict[str, float]:
        """Probabilities of the likeliest tokens."""
        shares = probabilities(values[None], head)[0]
        best = np.argsort(-shares, kind="stable")[:TOLD_TOKENS]
        return {self._tokenizer.token_text(int(index)): float(shares[index]) for index in best}

    def close(self) -> None:
        """Give everything back."""
        self._runtime.close()


def named(values: FloatArray, head: Head) -> dict[str, float]:
    """Probabilities by label, the likeliest first; nothing for a vector."""
    if head.task == "embed":
        return {}
    shares = probabilities(values[None], head)[0]
    return {head.labels[index]: float(shares[index]) for index in np.argsort(-shares, kind="stable")}
