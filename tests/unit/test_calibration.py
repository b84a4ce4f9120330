"""A calibration text is read, bounded and checked before an hour is spent on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf_files import byte_level_fields, write_gguf
from kobako.pipeline import calibration
from kobako.pipeline.calibration import CALIBRATION_TEXT, calibration_ids, digest, read_text
from kobako.pipeline.cli.options import calibrated_on
from kobako.pipeline.contracts import RECIPES
from kobako.pipeline.errors import IntegrityError, KobakoError, UsageError
from kobako.pipeline.prooftext import PROOF_TEXT
from kobako.pipeline.reference import gguf, gguf_tokenizer
from kobako.pipeline.tokens import ShippedTokenizer

PAGE = "The ship left the harbour before dawn, and nobody on the quay was awake to see it go. " * 8


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ShippedTokenizer:
    """A byte-level tokenizer with a chat template; its few merges make two bytes one token at best."""
    home = tmp_path_factory.mktemp("tokenizer")
    write_gguf(home / "m.gguf", byte_level_fields())
    gguf_tokenizer.build(gguf.read_header(home / "m.gguf")).save(str(home / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (home / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return ShippedTokenizer(home)


def test_kobakos_own_text_is_read_whole_and_as_chats(tokenizer: ShippedTokenizer) -> None:
    text = CALIBRATION_TEXT.read_text(encoding="utf-8")
    found = calibration_ids(tokenizer)
    windows, chats = found[: -len(text.split("\n\n"))], found[-len(text.split("\n\n")) :]
    assert tokenizer.decode([one for ids in windows for one in ids]) == text
    assert (2 * text.split("\n\n")[0]).startswith(tokenizer.decode(chats[0]))
    assert max(len(ids) for ids in found) == calibration.WINDOW_TOKENS  # memory grows with the longest


def test_a_users_text_is_read_in_windows(
    tokenizer: ShippedTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "FEWEST_BYTES_PER_TOKEN", 0.0)
    path = tmp_path / "own.txt"
    path.write_text("\n\n".join([PAGE] * 40))
    found = calibration_ids(tokenizer, path, digest(path.read_text()))
    assert len(found) == 2 * calibration.MOST_WINDOWS  # windows and chats
    assert max(len(ids) for ids in found) == calibration.WINDOW_TOKENS
    assert tokenizer.decode(found[0]) == path.read_text()[: len(tokenizer.decode(found[0]))]


def test_a_text_that_changes_during_a_build_is_noticed(tokenizer: ShippedTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text(PAGE)
    recipe = calibrated_on(RECIPES["int4"], path)
    assert recipe.calibration_sha256 == digest(PAGE)
    path.write_text(PAGE + "!")
    with pytest.raises(IntegrityError, match="changed while"):
        calibration_ids(tokenizer, path, recipe.calibration_sha256)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no text"),
        (b" \n\n ", "holds no text"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (PROOF_TEXT.read_bytes(), "proof's own text"),
        (None, "cannot be read"),
    ],
)
def test_what_cannot_be_a_calibration_text(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_text(path)


@pytest.mark.parametrize(
    ("text", "words"), [("A few words.", "tokens long"), ("ઝડપી બદામી શિયાળ " * 40, "in no language")]
)
def test_a_text_that_says_nothing_to_the_model(
    text: str, words: str, tokenizer: ShippedTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "own.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        calibration_ids(tokenizer, path, digest(text))


def test_a_recipe_that_reads_no_text_refuses_one(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(PAGE)
    with pytest.raises(KobakoError, match="reads no calibration text"):
        calibrated_on(RECIPES["float16"], tmp_path / "own.txt")
    assert calibrated_on(RECIPES["float16"], None) is RECIPES["float16"]
