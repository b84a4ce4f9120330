"""What an encoder-decoder is for, by architecture: prompts as its makers trained it with.

Models of many languages name them by tokens: the source's language stands before the text, the answer's behind its
end. Their prompts are written whole, and the tokenizer adds nothing to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .. import families
from ..contracts import Task
from ..errors import UnsupportedModel
from ..tasks import BASE_TASKS, TASKS
from ..tokens import ShippedTokenizer

T5_LANGUAGES: Mapping[str, str] = {"de": "German", "fr": "French", "ro": "Romanian"}
T5_TASKS: Mapping[str, Task] = {
    "summarize": Task(name="summarize", prompt="summarize: {text}", max_new_tokens=96),
    "translate": Task(
        name="translate",
        prompt="translate English to {target}: {text}",
        max_new_tokens=96,
        languages=tuple(T5_LANGUAGES),
        fills={code: {"target": name} for code, name in T5_LANGUAGES.items()},
    ),
}
PLAIN = Task(name="translate", prompt="{text}", max_new_tokens=96)
LANGUAGE = re.compile(r"__([a-z]{2,3})__|([a-z]{3}_[A-Z][a-z]{3})")
"""How M2M100 and NLLB write the token of a language."""
ENGLISH = ("en", "eng_Latn")


def languages_of(tokenizer: ShippedTokenizer) -> dict[str, str]:
    """Tokens of languages by code: ``fr`` → ``__fr__``, or ``fra_Latn`` → itself."""
    found = ((LANGUAGE.fullmatch(token), token) for token in tokenizer.special_texts)
    return {match[1] or match[2]: token for match, token in sorted(found, key=lambda pair: pair[1]) if match}


def own_tasks(model_type: str, tokenizer: ShippedTokenizer) -> Mapping[str, Task] | None:
    """The tasks of an encoder-decoder, by name; None for other models, whose tasks are `kobako.pipeline.tasks`'."""
    return tasks_of(model_type, tokenizer) if families.get(model_type).kind == "seq2seq" else None


def tasks_of(model_type: str, tokenizer: ShippedTokenizer) -> Mapping[str, Task]:
    """The tasks of an architecture, by name. Raises UnsupportedModel for a translator that names no language."""
    if model_type in ("t5", "mt5"):
        return T5_TASKS
    if model_type == "marian":
        return {"translate": PLAIN}
    if model_type in ("t5gemma", "t5gemma2"):  # trained to continue a text, which its encoder reads
        return TASKS if tokenizer.chat_template else BASE_TASKS
    languages = languages_of(tokenizer)
    if not languages:
        raise UnsupportedModel(
            f"no token of this {model_type} tokenizer names a language (__fr__, or fra_Latn).",
            "Name a checkpoint whose tokenizer.json lists the languages among its special tokens.",
        )
    end = str(tokenizer.config.get("eos_token") or "")
    source = next((code for code in ENGLISH if code in languages), next(iter(languages)))
    return {
        "translate": Task(
            name="translate",
            prompt="{source}{text}" + end + "{target}",
            max_new_tokens=96,
            languages=tuple(languages),
            fills={code: {"target": token, "source": languages[source]} for code, token in languages.items()},
            sources=languages,
        )
    }
