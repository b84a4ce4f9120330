"""Tokenizers out of GGUF metadata: what is promised without transformers. Equality with it is a contract test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import TokenizerFields, byte_level_fields, sentencepiece_fields, with_extra, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kobako.pipeline.errors import IntegrityError, UnsupportedModel
from kobako.pipeline.reference import gguf, gguf_tokenizer
from tokenizers import Tokenizer


def build(tmp_path: Path, fields: TokenizerFields) -> Tokenizer:
    path = tmp_path / "m.gguf"
    write_gguf(path, fields)
    return gguf_tokenizer.build(gguf.read_header(path))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return build(tmp_path_factory.mktemp("bytes"), byte_level_fields())


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return build(tmp_path_factory.mktemp("pieces"), sentencepiece_fields())


@given(st.text())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_byte_level_loses_nothing(byte_level: Tokenizer, text: str) -> None:
    assert byte_level.decode(byte_level.encode(text).ids, skip_special_tokens=False) == text


@given(st.text(alphabet=st.characters(exclude_characters="▁", exclude_categories=("Cs",))))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sentencepiece_loses_nothing(sentencepiece: Tokenizer, text: str) -> None:
    ids = sentencepiece.encode(text, add_special_tokens=False).ids
    back = sentencepiece.decode(ids, skip_special_tokens=False)
    # the space that stands before the first word is put there and taken away; before a special token it is not
    assert back in (text, text.removeprefix(" ")) or "<" in text


def test_special_tokens_stay_whole_inside_text(byte_level: Tokenizer) -> None:
    encoded = byte_level.encode("a<|im_end|>b<|im_start|>")
    assert 2 in encoded.ids
    assert 1 in encoded.ids
    assert byte_level.decode(encoded.ids) == "ab"


@pytest.mark.parametrize("make", [byte_level_fields, sentencepiece_fields])
@pytest.mark.parametrize(
    ("flags", "first", "last"),
    [
        ({"add_bos_token": True}, True, False),
        ({"add_bos_token": False}, False, False),
        ({"add_bos_token": True, "add_eos_token": True}, True, True),
    ],
)
def test_bos_and_eos_follow_the_file(
    tmp_path: Path, make: object, flags: dict[str, bool], first: bool, last: bool
) -> None:
    fields = with_extra(make(), **flags)  # type: ignore[operator]
    ids = build(tmp_path, fields).encode("the train").ids
    assert (ids[0] == fields.bos, ids[-1] == fields.eos) == (first, last)


def test_sentencepiece_adds_bos_when_the_file_is_silent(sentencepiece: Tokenizer, byte_level: Tokenizer) -> None:
    assert sentencepiece.encode("the train").ids[0] == 1
    assert byte_level.encode("the train").ids[0] != 1


def test_user_defined_tokens_are_whole_but_not_special(sentencepiece: Tokenizer) -> None:
    ids = sentencepiece.encode("a<extra>b", add_special_tokens=False).ids
    assert sentencepiece.token_to_id("<extra>") in ids
    assert "<extra>" in sentencepiece.decode(ids, skip_special_tokens=True)


def test_merges_follow_from_scores() -> None:
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "bc": 5}
    merges = gguf_tokenizer.implied_merges(vocabulary, [0.0, 0.0, 0.0, -2.0, -3.0, -1.0])
    assert merges == [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]


def test_digits_of_llama3_go_by_threes(tmp_path: Path) -> None:
    fields = byte_level_fields("llama-bpe")
    tokenizer = build(tmp_path, fields)
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("1234567")] == ["123", "456", "7"]


def test_gemma_puts_no_space_before_the_first_word(tmp_path: Path) -> None:
    tokenizer = build(tmp_path, with_extra(sentencepiece_fields(), add_space_prefix=False))
    text = " a  b\n"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("a", add_special_tokens=False).ids != tokenizer.encode(" a", add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        (replace(byte_level_fields(), pre="unheard-of"), UnsupportedModel, "'unheard-of'"),
        (replace(byte_level_fields(), pre=None), UnsupportedModel, "'None'"),
        (replace(byte_level_fields(), merges=None), UnsupportedModel, r"tokenizer\.ggml\.merges"),
        (replace(byte_level_fields(), model="bert"), UnsupportedModel, "kind 'bert'"),
        (replace(byte_level_fields(), bos=100_000), IntegrityError, "beyond the vocabulary"),
        (replace(sentencepiece_fields(), scores=None), UnsupportedModel, r"tokenizer\.ggml\.scores"),
        (
            replace(
                sentencepiece_fields(), tokens=["x" if t == "<0x41>" else t for t in sentencepiece_fields().tokens]
            ),
            UnsupportedModel,
            "byte tokens",
        ),
    ],
)
def test_what_is_not_well_defined_is_refused(
    tmp_path: Path, fields: TokenizerFields, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        build(tmp_path, fields)
