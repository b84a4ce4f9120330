"""Greedy generation over any Runtime: tokens in, text out, streamed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from .errors import UsageError
from .protocols import Generation, OnText, Runtime
from .tokens import ShippedTokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Turns token ids into text piece by piece; a character whose bytes span several tokens comes out whole."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._begin = 0  # decoding starts here: what lies before cannot change the text any more
        self._told = 0  # up to here the text has been given out

    def push(self, token: int) -> str:
        """The text that `token` completes: often a word's part, sometimes nothing yet."""
        self._ids.append(token)
        return self._take(final=False)

    def finish(self) -> str:
        """What is left at the end, an incomplete character as U+FFFD."""
        return self._take(final=True)

    def _take(self, *, final: bool) -> str:
        before = self._decode(self._ids[self._begin : self._told])
        text = self._decode(self._ids[self._begin :])
        if len(text) <= len(before) or (text.endswith(REPLACEMENT) and not final):
            return ""
        self._begin, self._told = self._told, len(self._ids)
        return text[len(before) :]


class TokenEngine:
    """Fulfils `protocols.Engine` with a Runtime and the tokenizer that ships beside it.

    Args:
        runtime: closed together with the engine.
        tokenizer_path: the directory of ``tokenizer.json`` and ``tokenizer_config.json``.
        stop_ids: generation ends before any of these.
        name: what runs the artifact, for reports.
    """

    def __init__(self, runtime: Runtime, tokenizer_path: Path, stop_ids: Collection[int], name: str) -> None:
        self.name = name
        self._runtime = runtime
        self._tokenizer = ShippedTokenizer(tokenizer_path)
        self._stops = frozenset(stop_ids)

    def generate(self, prompt: str, max_new_tokens: int, on_text: OnText) -> Generation:
        """Continue `prompt` greedily. Raises UsageError when the prompt is empty or longer than the context.

        A stop token is not counted; where the context is full, the answer ends.
        """
        ids = self._tokenizer.encode_prompt(prompt)
        if not ids or max_new_tokens < 1:
            raise UsageError("nothing to generate: the prompt is empty or no new tokens are allowed.")
        self._runtime.reset()
        stream = TextStream(self._tokenizer.decode)
        begin = time.perf_counter()
        token = int(self._runtime.feed(ids).argmax())
        first = time.perf_counter()
        answer: list[int] = []
        pieces: list[str] = []
        while token not in self._stops:
            answer.append(token)
            ended = tell(stream.push(token), pieces, on_text)
            if ended or len(answer) == max_new_tokens:
                break
            following = self._next(token)
            if following is None:
                break
            token = following
        tell(stream.finish(), pieces, on_text)
        return Generation(
            text="".join(pieces), token_ids=tuple(answer), prompt_tokens=len(ids), generated_tokens=len(answer),
            prefill_s=first - begin, decode_s=time.perf_counter() - first,
        )  # fmt: skip

    def close(self) -> None:
        """Give everything back."""
        self._runtime.close()

    def _next(self, token: int) -> int | None:
        """The token after `token`, or None when the context is full."""
        try:
            return int(self._runtime.feed([token]).argmax())
        except UsageError:
            return None


def tell(piece: str, pieces: list[str], on_text: OnText) -> bool:
    """Keep a piece of text and pass it on, unless it is empty; whether the answer shall end here."""
    if not piece:
        return False
    pieces.append(piece)
    return bool(on_text(piece))


class Until:
    """Passes text on up to the first of some stop strings; what may be the beginning of one waits.

    White space before the answer is left out: a base model continues ``French:`` with a space.
    """

    def __init__(self, stops: Sequence[str], on_text: Callable[[str], object]) -> None:
        self._stops, self._on_text = tuple(stops), on_text
        self._waiting = ""
        self.text = ""
        self.ended = False

    def __call__(self, piece: str) -> bool:
        """Take a piece of the answer; whether a stop string has been seen."""
        if self.ended:
            return True
        self._waiting += piece
        if not self.text:
            self._waiting = self._waiting.lstrip()
        found = [self._waiting.find(stop) for stop in self._stops if stop in self._waiting]
        self.ended = bool(found)
        self._pass(min(found) if found else len(self._waiting) - self._held())
        return self.ended

    def finish(self) -> str:
        """The whole answer, once no more will come."""
        if not self.ended:
            self._pass(len(self._waiting))
        return self.text

    def _held(self) -> int:
        """How many characters at the end may begin a stop string."""
        ends = [n for stop in self._stops for n in range(1, len(stop)) if self._waiting.endswith(stop[:n])]
        return max(ends, default=0)

    def _pass(self, count: int) -> None:
        if count:
            self.text += self._waiting[:count]
            self._on_text(self._waiting[:count])
            self._waiting = self._waiting[count:]
