"""The published chat templates under fixtures/, and conversations for them. ``python -m tests.chat_templates`` writes
what Jinja makes of them, against which every other renderer is held.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from kobako.pipeline.errors import UnsupportedModel
from kobako.pipeline.rendering import render

HOME = Path(__file__).parent / "fixtures" / "chat_templates"
GOLDEN = HOME / "golden.json"
TODAY = "<TODAY>"
SPECIAL: Mapping[str, Mapping[str, str]] = {
    "chatml": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
    "smollm2": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
    "qwen2": {"bos_token": "", "eos_token": "<|im_end|>"},
    "qwen3": {"bos_token": "", "eos_token": "<|im_end|>"},
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "llama3_2": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "phi3": {"bos_token": "<s>", "eos_token": "<|endoftext|>"},
    "gemma2": {"bos_token": "<bos>", "eos_token": "<eos>"},
    "gemma3": {"bos_token": "<bos>", "eos_token": "<eos>"},
    "granite": {"bos_token": "<|end_of_text|>", "eos_token": "<|end_of_text|>"},
}
SENTENCE_PIECE = {"bos_token": "<s>", "eos_token": "</s>"}

ONE: Sequence[Mapping[str, str]] = ({"role": "user", "content": '  Tell me "why" & <how>.\n'},)
SEVERAL: Sequence[Mapping[str, str]] = (
    {"role": "user", "content": "Où est la gare ?"},
    {"role": "assistant", "content": "Là-bas. {{ not code }}\n\n"},
    {"role": "user", "content": "別の質問 👩‍👩‍👧 café"},
)
SYSTEM: Sequence[Mapping[str, str]] = (
    {"role": "system", "content": "Answer briefly.\n"},
    {"role": "user", "content": "Who are you?"},
)
CONVERSATIONS: Mapping[str, Sequence[Mapping[str, str]]] = {"one turn": ONE, "several": SEVERAL, "system": SYSTEM}


def names() -> list[str]:
    """Every template's name."""
    return sorted(path.stem for path in HOME.glob("*.jinja"))


def template(name: str) -> str:
    """A template as it is published."""
    return (HOME / f"{name}.jinja").read_text(encoding="utf-8")


def special(name: str) -> Mapping[str, str]:
    """Special tokens as templates see them."""
    return SPECIAL.get(name, SENTENCE_PIECE)


def dated(text: str) -> str:
    """`text` with a mark where it says today's date, as Llama 3.2 does."""
    return text.replace(date.today().strftime("%d %b %Y"), TODAY)


def said(name: str, messages: Sequence[Mapping[str, str]]) -> str | None:
    """What Jinja makes of a conversation, ready to be continued; None when the template refuses it."""
    try:
        return dated(render(template(name), messages, special(name)))
    except UnsupportedModel:
        return None


def golden() -> Any:
    """Every template with every conversation."""
    return {
        name: {
            "special_tokens": special(name),
            "cases": [
                {"name": kind, "messages": list(messages), "text": said(name, messages)}
                for kind, messages in CONVERSATIONS.items()
            ],
        }
        for name in names()
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
