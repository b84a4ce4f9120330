"""Published chat templates: Jinja says what the golden file says, and so does minijinja as LiteRT-LM calls it."""

from __future__ import annotations

import json

import pytest
from kobako.pipeline.errors import UnsupportedModel
from kobako.pipeline.rendering import render_minijinja
from kobako.pipeline.templates import as_parts, portable

from tests.chat_templates import CONVERSATIONS, GOLDEN, dated, golden, names, special, template


def test_jinja_says_what_the_golden_file_says() -> None:
    assert len(names()) >= 14
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == golden(), "python -m tests.chat_templates writes it anew"


@pytest.mark.parametrize("name", names())
def test_minijinja_says_the_same(name: str) -> None:
    # as in a .litertlm: parts instead of text, no special tokens given
    rewritten = portable(template(name), special(name))
    cases = {case["name"]: case for case in json.loads(GOLDEN.read_text(encoding="utf-8"))[name]["cases"]}
    assert cases.keys() == CONVERSATIONS.keys()
    for kind, messages in CONVERSATIONS.items():
        if cases[kind]["text"] is None:
            with pytest.raises(UnsupportedModel):
                render_minijinja(rewritten, as_parts(messages), {})
        else:
            assert dated(render_minijinja(rewritten, as_parts(messages), {})) == cases[kind]["text"]


@pytest.mark.parametrize("name", names())
def test_special_tokens_are_written_once(name: str) -> None:
    tokens = special(name)
    for case in golden()[name]["cases"]:
        text = case["text"] or ""
        for token in filter(None, tokens.values()):
            assert token * 2 not in text
