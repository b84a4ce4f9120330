"""What the app's tokenizer is held against: the golden file is what the tokenizers library says of hard texts."""

from __future__ import annotations

import json

import pytest

from tests.tiny_tokenizers import GOLDEN, HOME, SPECIAL, golden, names, shipped


def test_the_golden_file_is_what_the_library_says() -> None:
    kinds = {json.loads((HOME / name / "tokenizer.json").read_text())["model"]["type"] for name in names()}
    assert kinds == {"BPE", "Unigram", "WordPiece"}
    told = json.loads((HOME / GOLDEN).read_text(encoding="utf-8"))
    assert told == golden(), "python -m tests.tiny_tokenizers writes it anew"


@pytest.mark.parametrize("name", names())
def test_the_pieces_are_the_whole_text(name: str) -> None:
    for case in json.loads((HOME / GOLDEN).read_text(encoding="utf-8"))[name]:
        assert "".join(case["pieces"]) == case["decoded"]


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
def test_no_byte_is_lost(name: str) -> None:
    for case in json.loads((HOME / GOLDEN).read_text(encoding="utf-8"))[name]:
        if not any(token in case["text"] for token in SPECIAL):
            assert case["decoded"] == case["text"].replace("▁", " ")


@pytest.mark.parametrize("name", names())
def test_a_prompt_begins_with_one_bos(name: str) -> None:
    tokenizer = shipped(name)
    bos = tokenizer.special_tokens["bos_token"]
    for prompt in ("Hi", f"{bos}Hi"):
        ids = tokenizer.encode_prompt(prompt)
        assert ids.count(SPECIAL.index("<s>")) == (1 if bos else 0)
