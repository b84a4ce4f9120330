"""Chat templates rendered for real, in both engines. Runs inside `jail`: a template is a program of a stranger.

Jinja2 in its immutable sandbox with what Hugging Face offers to templates, and minijinja as the LiteRT-LM engine does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UnsupportedModel

Message = Mapping[str, Any]


def render(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
) -> str:
    """Render in Jinja2's immutable sandbox, with what Hugging Face offers to templates.

    Raises UnsupportedModel when the template cannot be parsed or refuses the conversation.
    """
    import jinja2

    try:
        return str(
            sandbox()
            .from_string(template)
            .render(messages=messages, add_generation_prompt=add_generation_prompt, **special_tokens)
        )
    except jinja2.TemplateError as error:
        raise UnsupportedModel(f"the chat template cannot be rendered: {error}") from error
    except MemoryError as error:
        raise UnsupportedModel("the chat template needs more memory than any template should.") from error
    except Exception as error:  # a template may raise whatever Python can: it is a program
        raise UnsupportedModel(f"the chat template fails: {type(error).__name__}: {error}") from error


def sandbox() -> Any:
    """Jinja2's environment for templates, with Hugging Face's additions."""
    import jinja2.ext
    import jinja2.sandbox

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)  # Jinja2's own escapes HTML


def _refuse(message: str) -> str:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(pattern)


def render_minijinja(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
) -> str:
    """Render as the LiteRT-LM engine does: minijinja without Python's methods. Raises UnsupportedModel."""
    import minijinja

    environment = minijinja.Environment(pycompat=False)
    environment.auto_escape_callback = lambda _name: False
    environment.add_filter("tojson", _to_json)
    environment.add_global("raise_exception", _refuse)
    environment.add_global("strftime_now", _strftime_now)
    names = {"messages": messages, "add_generation_prompt": add_generation_prompt, **special_tokens}
    try:
        return str(environment.render_str(template, **names))
    except Exception as error:  # minijinja hands on whatever a called function raised
        raise UnsupportedModel(f"the phone's template engine fails: {str(error).splitlines()[0]}") from error
