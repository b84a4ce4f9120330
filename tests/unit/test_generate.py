"""The greedy loop: streaming of split characters, stops, limits. A scripted runtime, a real tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from kobako.pipeline.contracts import FloatArray
from kobako.pipeline.errors import UsageError
from kobako.pipeline.generate import TextStream, TokenEngine, Until
from kobako.pipeline.tokens import ShippedTokenizer

from tests.conftest import write_tiny_tokenizer

STOP = 2


class Scripted:
    """A runtime that says given tokens whatever it is fed."""

    def __init__(self, script: Sequence[int], context: int = 100) -> None:
        self.script, self.context, self.fed, self.said = list(script), context, 0, 0

    def reset(self) -> None:
        self.fed = self.said = 0

    def feed(self, ids: Sequence[int]) -> FloatArray:
        if self.fed + len(ids) > self.context:
            raise UsageError("full")
        self.fed += len(ids)
        logits = np.zeros(384, np.float32)
        logits[self.script[self.said]] = 1.0
        self.said += 1
        return logits

    def close(self) -> None:
        self.fed = -1


@pytest.fixture
def tokenizer(tmp_path: Path) -> ShippedTokenizer:
    write_tiny_tokenizer(tmp_path / "tokenizer")
    return ShippedTokenizer(tmp_path / "tokenizer")


def test_characters_of_several_tokens_come_whole(tokenizer: ShippedTokenizer) -> None:
    text = "Zürich 東京 🚆 done"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)  # the tiny vocabulary splits these characters into bytes
    stream = TextStream(tokenizer.decode)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.finish() == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len([piece for piece in pieces if piece]) > 5


def test_incomplete_character_is_told_at_the_end(tokenizer: ShippedTokenizer) -> None:
    ids = tokenizer.encode("🚆")[:-1]
    stream = TextStream(tokenizer.decode)
    assert [stream.push(token) for token in ids] == [""] * len(ids)
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_stops_at_the_stop_token(tokenizer: ShippedTokenizer) -> None:
    answer = tokenizer.encode(" in a tunnel")
    engine = TokenEngine(Scripted([*answer, STOP]), tokenizer.directory, [STOP], "scripted")
    pieces: list[str] = []
    said = engine.generate("The train", 50, pieces.append)
    assert said.text == "".join(pieces) == " in a tunnel"
    assert said.token_ids == tuple(answer)
    assert said.generated_tokens == len(answer)
    assert engine.generate("The train", 50, pieces.append).text == said.text  # the position was reset


def test_stops_at_the_limits(tokenizer: ShippedTokenizer) -> None:
    engine = TokenEngine(Scripted([40] * 60), tokenizer.directory, [STOP], "scripted")
    assert engine.generate("a", 3, lambda _: None).generated_tokens == 3
    prompt = len(tokenizer.encode_prompt("The train"))
    engine = TokenEngine(Scripted([40] * 60, context=prompt + 4), tokenizer.directory, [STOP], "scripted")
    assert engine.generate("The train", 50, lambda _: None).generated_tokens == 5  # the last one need not be fed
    with pytest.raises(UsageError, match="nothing to generate"):
        engine.generate("", 5, lambda _: None)


@pytest.mark.parametrize(
    ("pieces", "text", "count"),
    [
        ([" Bon", "jour", "\n\nEng", "lish"], "Bonjour", 3),
        ([" a", "\n"], "a", 2),
        (["x<", "|", "y"], "x<|y", 3),
        (["x<", "|end|>", "y"], "x", 2),
        ([" ", " "], "", 2),
    ],
)
def test_until_ends_at_the_first_stop_string(pieces: list[str], text: str, count: int) -> None:
    said: list[str] = []
    until = Until(("\n", "<|end|>"), said.append)
    taken = 0
    for piece in pieces:
        taken += 1
        if until(piece):
            break
    assert (until.finish(), taken) == (text, count)
    assert "".join(said) == text
