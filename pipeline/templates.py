"""Chat templates: rendered in a sandbox as Hugging Face does, and rewritten so that the phone's engine agrees.

The LiteRT-LM engine renders with minijinja: ``content`` comes as a list of parts, Python's string methods do not
exist, and whitespace settings are not ours. `portable` returns a template that says the same in both worlds.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UnsupportedModel
from .jail import TEMPLATE_BYTES, rendered
from .rendering import sandbox

Message = Mapping[str, Any]

# Content given as a list of parts becomes one string; everything after this sees strings only.
PROLOGUE = (
    "{% set flat = namespace(messages=[], text='') %}"
    "{% for message in messages %}"
    "{% if message['content'] is string or not message['content'] %}"
    "{% set flat.messages = flat.messages + [message] %}"
    "{% else %}"
    "{% set flat.text = '' %}"
    "{% for part in message['content'] %}{% set flat.text = flat.text + part['text'] %}{% endfor %}"
    "{% set flat.messages = flat.messages + [dict(message, content=flat.text)] %}"
    "{% endif %}"
    "{% endfor %}"
    "{% set messages = flat.messages %}"
)
METHOD_FILTERS: Mapping[str, str] = {"strip": "trim", "upper": "upper", "lower": "lower", "items": "items"}
"""Python methods without arguments, and the filters that mean the same in both engines."""

ENDS: Mapping[str, str] = {"startswith": "[:{size}] == ", "endswith": "[-{size}:] == "}
"""Methods that compare one end of a string with a constant one: a slice says the same in both engines."""

PROBES: Sequence[Sequence[Message]] = (
    ({"role": "user", "content": 'Tell me "why".\n'},),
    (
        {"role": "user", "content": "  One <b>question</b>?"},
        {"role": "assistant", "content": "One answer.\n\n"},
        {"role": "user", "content": "Une autre ? 別の質問"},
    ),
    ({"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Who are you?"}),
)
"""Conversations a rewritten template is proven on."""


def render(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
) -> str:
    """Render in Jinja2's immutable sandbox, with what Hugging Face offers to templates, in a process of its own.

    Raises UnsupportedModel when the template cannot be parsed, refuses the conversation, or takes too much.
    """
    return rendered("jinja2", template, messages, special_tokens, add_generation_prompt)


def render_minijinja(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
) -> str:
    """Render as the LiteRT-LM engine does: minijinja without Python's methods. Raises UnsupportedModel."""
    return rendered("minijinja", template, messages, special_tokens, add_generation_prompt)


def portable(template: str, special_tokens: Mapping[str, str] | None = None) -> str:
    """The same template for minijinja, proven on PROBES with string contents and with lists of parts.

    With `special_tokens` they become part of the template, for engines that leave them empty.
    Raises UnsupportedModel when the result does not render exactly as the original does.
    """
    tokens = dict(special_tokens or {})
    fixed = "".join(f"{{% set {name} = {json.dumps(text, ensure_ascii=False)} %}}" for name, text in tokens.items())
    rewritten = PROLOGUE + fixed + _explicit_whitespace(template)
    answered = [_prove(template, rewritten, probe, tokens) for probe in PROBES]
    if not any(answered):
        raise UnsupportedModel("the chat template refuses every conversation it was tried on.")
    return rewritten


def as_parts(messages: Sequence[Message]) -> list[Message]:
    """The conversation as the LiteRT-LM engine hands it to templates."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def _prove(original: str, rewritten: str, messages: Sequence[Message], tokens: Mapping[str, str]) -> bool:
    """Whether the original renders `messages`. Raises UnsupportedModel when the two disagree."""
    for generation in (True, False):
        try:
            expected = render(original, messages, tokens, generation)
        except UnsupportedModel:
            return False  # the model knows no such conversation (no system role, for instance)
        for renderer in (render, render_minijinja):
            for given in (messages, as_parts(messages)):
                actual = renderer(rewritten, given, tokens, generation)
                if actual != expected:
                    raise UnsupportedModel(
                        f"the chat template cannot be rewritten for the phone: {renderer.__name__} gives "
                        f"{_first_difference(expected, actual)}.",
                        "Report the model: its template needs a rule in pipeline/templates.py.",
                    )
    return True


def _first_difference(expected: str, actual: str) -> str:
    where = next((i for i, (a, b) in enumerate(zip(expected, actual, strict=False)) if a != b), -1)
    where = min(len(expected), len(actual)) if where < 0 else where
    return f"{actual[where : where + 20]!r} instead of {expected[where : where + 20]!r} at character {where}"


def _explicit_whitespace(template: str) -> str:
    """`template` with trim_blocks, lstrip_blocks and every ``-`` already applied, and methods made filters.

    Raises UnsupportedModel when it cannot be parsed.
    """
    import jinja2

    if len(template) > TEMPLATE_BYTES:
        raise UnsupportedModel(f"the chat template has {len(template):,} characters.", "Do not use the model.")
    try:
        lexed = [(kind, value) for _, kind, value in sandbox().lexer.tokeniter(template, None)]
    except (jinja2.TemplateSyntaxError, RecursionError) as error:
        raise UnsupportedModel(f"the chat template cannot be parsed: {error}") from error
    pieces: list[str] = []
    hidden = False
    for kind, value in _methods_to_filters(lexed):
        if kind in {"comment_begin", "comment_end"}:
            hidden = kind == "comment_begin"
        elif kind == "data":
            pieces.append(_literal(value))
        elif not hidden and kind not in {"raw_begin", "raw_end"}:
            pieces.append(DELIMITERS.get(kind, value))
    return "".join(pieces)


DELIMITERS: Mapping[str, str] = {
    "block_begin": "{%", "block_end": "%}", "variable_begin": "{{", "variable_end": "}}",
}  # fmt: skip


def _literal(data: str) -> str:
    """Text that no whitespace rule and no delimiter can change."""
    fragile = data != data.strip() or any(mark in data for mark in ("{{", "{%", "{#"))
    return "{{ " + json.dumps(data, ensure_ascii=False) + " }}" if fragile else data


def _compared_end(window: Sequence[tuple[str, str]]) -> list[tuple[str, str]] | None:
    """``.startswith('ab')`` → ``[:2] == 'ab'``; None for other tokens."""
    if len(window) < 5 or window[0][1] != "." or window[1][1] not in ENDS:
        return None
    (_, opened), (kind, text), (_, closed) = window[2:5]
    if (opened, kind, closed) != ("(", "string", ")"):
        return None
    return [("operator", ENDS[window[1][1]].format(size=len(ast.literal_eval(text)))), (kind, text)]


def _methods_to_filters(lexed: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """``x.strip()`` → ``x|trim``, where nothing is chained to the result; see `_compared_end` for the others."""
    result: list[tuple[str, str]] = []
    index = 0
    while index < len(lexed):
        if compared := _compared_end(lexed[index : index + 5]):
            result += compared
            index += 5
            continue
        window = [value for _, value in lexed[index : index + 5]]
        call = len(window) == 5 and window[0] == "." and window[2:4] == ["(", ")"] and window[4] not in {".", "[", "("}
        if call and window[1] in METHOD_FILTERS:
            result += [("operator", "|"), ("name", METHOD_FILTERS[window[1]])]
            index += 4
        else:
            result.append(lexed[index])
            index += 1
    return result
