"""What a command has told a script so far: with ``--json``, stdout holds one document, whatever happens afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import click


@dataclass
class Answer:
    """The object of click's context. `given`: the JSON document is on stdout."""

    given: bool = False


def answer_given() -> None:
    """Remember it: an error that follows, as that of a failed proof, goes to stderr alone."""
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, Answer):
        context.obj.given = True
