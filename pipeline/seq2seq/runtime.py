"""An encoder-decoder's artifact as a `Runtime`: what is fed first is the source, what follows is the answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..contracts import Exported, FloatArray
from ..errors import UsageError
from ..protocols import Seq2SeqSteps
from .facts import BEGIN, LANGUAGES, NEVER, STOP, ids_in


class Seq2SeqRuntime:
    """Fulfils `protocols.Runtime` over the two functions of an artifact; closed together with them."""

    def __init__(self, steps: Seq2SeqSteps, exported: Exported) -> None:
        """Raises BadArtifact when the artifact does not tell what an answer begins with."""
        self._steps, self._context = steps, exported.context_tokens
        self._begin = ids_in(exported.details, BEGIN)
        self._stops: Collection[int] = ids_in(exported.details, STOP) if exported.details.get(LANGUAGES) else ()
        self._never = ids_in(exported.details, NEVER)
        self._position: int | None = None

    @property
    def name(self) -> str:
        """What runs it, with its version."""
        return self._steps.name

    def reset(self) -> None:
        """Forget source and answer."""
        self._position = None

    def feed(self, ids: Sequence[int]) -> FloatArray:
        """A whole source, or more of the answer; logits ``[V]`` that follow. Raises UsageError for too many tokens.

        Where a model names languages by tokens, the one behind a source's end is what the answer begins with. Tokens
        that are never said have no chance.
        """
        logits = self._fed(ids)
        logits[self._never] = -np.inf
        return logits

    def _fed(self, ids: Sequence[int]) -> FloatArray:
        if self._position is not None:
            return self.answer(ids)
        named = len(ids) > 1 and ids[-2] in self._stops
        source = ids[:-1] if named else ids
        self.read(source, [1] * len(source))
        return self.answer([self._begin[0], ids[-1]] if named else self._begin)

    def read(self, ids: Sequence[int], mask: Sequence[int]) -> None:
        """Run the encoder; the answer begins anew. Raises UsageError for no tokens, or more than the artifact holds."""
        if not 0 < len(ids) <= self._context:
            raise UsageError(
                f"{len(ids)} tokens do not fit an encoder of {self._context}.",
                "Shorten or divide the text, or build the package with a longer --context.",
            )
        self._steps.read(ids, mask)
        self._position = 0

    def answer(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens of the answer; logits ``[V]`` that follow the last. Raises UsageError beyond the context."""
        position = self._position or 0
        if not ids or position + len(ids) > self._context:
            raise UsageError(f"{position} + {len(ids)} tokens do not fit an answer of 1 to {self._context}.")
        for token in ids:
            logits = self._steps.step(token, position)
            position += 1
        self._position = position
        return logits

    def close(self) -> None:
        """Give everything back."""
        self._steps.close()


class Sourced:
    """A Runtime for teacher-forced answers: each reset reads the next of some sources, what is fed is its answer."""

    def __init__(self, runtime: Seq2SeqRuntime, sources: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
        """`sources`: ids and mask of each."""
        self._runtime, self._left = runtime, list(sources)

    def reset(self) -> None:
        """Go on to the next source."""
        self._runtime.read(*self._left.pop(0))

    def feed(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens of the answer."""
        return self._runtime.answer(ids)

    def close(self) -> None:
        """Nothing: the runtime belongs to another."""
