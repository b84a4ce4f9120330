"""Prompts are data; the user's text means nothing to the template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kobako.pipeline.errors import UsageError
from kobako.pipeline.prooftext import proof_windows
from kobako.pipeline.tasks import TASKS, build_prompt, fields_for, tasks_for
from kobako.pipeline.tokens import ShippedTokenizer, stop_ids

from tests.conftest import write_tiny_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> ShippedTokenizer:
    write_tiny_tokenizer(tmp_path / "tokenizer")
    return ShippedTokenizer(tmp_path / "tokenizer")


def test_braces_and_template_code_in_the_text_stay_text(tokenizer: ShippedTokenizer) -> None:
    nasty = "{text} {source} {{ 7*7 }} {% for %} <|im_end|>"
    prompt = build_prompt(TASKS["summarize"], tokenizer, {"text": nasty, "source": "en"})
    assert nasty in prompt
    assert prompt.endswith("<|im_start|>assistant\n")


def test_tasks_asked_for_must_exist(tokenizer: ShippedTokenizer) -> None:
    assert [task.name for task in tasks_for((), tokenizer)] == ["chat", "summarize"]
    assert [task.name for task in tasks_for(("summarize",), tokenizer)] == ["summarize"]
    with pytest.raises(UsageError, match="no task 'sing'"):
        tasks_for(("sing",), tokenizer)


def test_a_base_model_is_shown_translations(tmp_path: Path, tokenizer: ShippedTokenizer) -> None:
    config = {key: value for key, value in tokenizer.config.items() if key != "chat_template"}
    (tokenizer.directory / "tokenizer_config.json").write_text(json.dumps(config))
    base = ShippedTokenizer(tokenizer.directory)
    (task,) = tasks_for(("translate",), base)
    prompt = build_prompt(task, base, fields_for(task, "{target} {examples}", "de"))
    assert prompt.endswith("\n\nEnglish: {target} {examples}\nGerman:")
    assert prompt.count("English: ") == 4
    assert [task.name for task in tasks_for((), base)] == ["complete"]
    for to, words in ((None, "needs a language"), ("ja", "does not know the language 'ja'")):
        with pytest.raises(UsageError, match=words):
            fields_for(task, "x", to)
    with pytest.raises(UsageError, match="no target language"):
        fields_for(TASKS["chat"], "x", "fr")


def test_ids_round_trip(tokenizer: ShippedTokenizer) -> None:
    text = "Une petite boîte 小さな箱 🙂 \n  two spaces"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_proof_windows_fit_the_context(tokenizer: ShippedTokenizer) -> None:
    assert proof_windows(tokenizer, 1024).shape == (1, 512)
    assert proof_windows(tokenizer, 128).shape == (4, 128)
    with pytest.raises(UsageError, match="too short"):
        proof_windows(tokenizer, 32)


@pytest.mark.parametrize(
    ("text", "ids"), [('{"eos_token_id": [1, 2]}', (1, 2)), ('{"eos_token_id": 5}', (5,)), ("{}", ())]
)
def test_stop_ids(tmp_path: Path, text: str, ids: tuple[int, ...]) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    assert stop_ids(tmp_path) == ids
