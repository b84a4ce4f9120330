"""What a package is for: prompt builders that are data, shared by ``kobako run``, the proof and the phone app."""

from __future__ import annotations

from collections.abc import Mapping

from .contracts import Task
from .errors import UsageError
from .heads import Head
from .tokens import ShippedTokenizer

TARGET_NAMES: Mapping[str, str] = {"fr": "French", "de": "German", "es": "Spanish"}
EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "fr": (
        ("Good morning, how are you?", "Bonjour, comment allez-vous ?"),
        ("The train leaves at six o'clock.", "Le train part à six heures."),
        ("I would like a cup of coffee, please.", "Je voudrais une tasse de café, s'il vous plaît."),
    ),
    "de": (
        ("Good morning, how are you?", "Guten Morgen, wie geht es Ihnen?"),
        ("The train leaves at six o'clock.", "Der Zug fährt um sechs Uhr ab."),
        ("I would like a cup of coffee, please.", "Ich hätte gerne eine Tasse Kaffee, bitte."),
    ),
    "es": (
        ("Good morning, how are you?", "Buenos días, ¿cómo está usted?"),
        ("The train leaves at six o'clock.", "El tren sale a las seis."),
        ("I would like a cup of coffee, please.", "Quisiera una taza de café, por favor."),
    ),
}
"""What shows a base model the task: three sentences and their translations."""


def shown(code: str) -> str:
    """The examples of a language as they stand in the prompt."""
    lines = [f"English: {english}\n{TARGET_NAMES[code]}: {other}\n\n" for english, other in EXAMPLES[code]]
    return "".join(lines)


TASKS: Mapping[str, Task] = {
    "chat": Task(name="chat", messages=({"role": "user", "content": "{text}"},), max_new_tokens=256),
    "summarize": Task(
        name="summarize",
        messages=({"role": "user", "content": "Summarize the following text in one sentence.\n\n{text}"},),
        max_new_tokens=96,
        languages=("en",),
    ),
    "translate": Task(
        name="translate",
        messages=({"role": "user", "content": "Translate from English into {target}.\n\n{text}"},),
        max_new_tokens=96,
        languages=tuple(TARGET_NAMES),
        fills={code: {"target": name} for code, name in TARGET_NAMES.items()},
    ),
}

BASE_TASKS: Mapping[str, Task] = {
    "complete": Task(name="complete", prompt="{text}", max_new_tokens=64),
    "translate": Task(
        name="translate",
        prompt="{examples}English: {text}\n{target}:",
        stop=("\n",),
        max_new_tokens=96,
        languages=tuple(TARGET_NAMES),
        fills={code: {"target": name, "examples": shown(code)} for code, name in TARGET_NAMES.items()},
    ),
}
ENCODER_TASKS: Mapping[str, Task] = {
    "embed": Task(name="embed", prompt="{text}", max_new_tokens=0, output="vector"),
    "classify": Task(name="classify", prompt="{text}", max_new_tokens=0, output="labels"),
    "fill-mask": Task(name="fill-mask", prompt="{text}", max_new_tokens=0, output="labels"),
    "answer": Task(name="answer", prompt="{text}", max_new_tokens=0, output="span"),
    "tag": Task(name="tag", prompt="{text}", max_new_tokens=0, output="tags"),
}
DEFAULTS = ("chat", "summarize", "complete")
"""What a package is for when nobody says: few small models translate."""


def tasks_for(
    names: tuple[str, ...], tokenizer: ShippedTokenizer, head: Head | None = None,
    own: Mapping[str, Task] | None = None,
) -> tuple[Task, ...]:  # fmt: skip
    """The tasks a package declares: those asked for, or what its chat template allows; of an encoder, its head's.

    `own`: the tasks of an encoder-decoder, which are all that it does.

    Raises UsageError for a task that does not exist or needs a chat template or a head that the model lacks.
    """
    if head is not None:
        known: Mapping[str, Task] = {head.task: ENCODER_TASKS[head.task]}
    elif own is not None:
        known = own
    else:
        known = TASKS if tokenizer.chat_template else BASE_TASKS
    for name in names:
        if name not in known:
            raise UsageError(f"this model has no task {name!r}.", f"Tasks: {', '.join(known)}.")
    usual = known if own is not None else [name for name in known if name in (*DEFAULTS, *ENCODER_TASKS)]
    return tuple(known[name] for name in (names or usual))


def fields_for(task: Task, text: str, to: str | None, source: str | None = None) -> dict[str, str]:
    """The template's fields: the text, and what the languages add. Raises UsageError for one missing or unknown.

    `to` and `source` are codes of languages; most tasks read English only.
    """
    if source is not None and source not in task.sources:
        known = ", ".join(task.sources) or "none: it reads what it reads"
        raise UsageError(f"task {task.name!r} cannot be told the source language {source!r}.", f"It knows {known}.")
    if not task.fills:
        if to is not None:
            raise UsageError(f"task {task.name!r} has no target language.", "Leave --to out.")
        return {"text": text}
    if to is None or to not in task.fills:
        said = f"task {task.name!r} does not know the language {to!r}" if to else f"task {task.name!r} needs a language"
        raise UsageError(f"{said}.", f"Give one of them with --to: {', '.join(task.fills)}.")
    return {**task.fills[to], **({"source": task.sources[source]} if source else {}), "text": text}


def build_prompt(task: Task, tokenizer: ShippedTokenizer, fields: Mapping[str, str]) -> str:
    """The prompt an engine is given: the task's template filled in, the chat template around it.

    Fields are put in literally: braces in the user's text mean nothing.
    """
    if task.messages:
        messages = [{**message, "content": _fill(message["content"], fields)} for message in task.messages]
        return tokenizer.render(messages)
    return _fill(task.prompt, fields)


def _fill(template: str, fields: Mapping[str, str]) -> str:
    parts = template.split("{text}")
    for name, value in fields.items():
        if name != "text":
            parts = [part.replace("{" + name + "}", value) for part in parts]
    return fields.get("text", "").join(parts)
