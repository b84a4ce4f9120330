"""``kobako run``."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import click

from ..names import printable
from .options import json_option, print_json, quiet_option

ENCODER_TEXTS = 2
EXAMPLES = """Example: kobako run dist/smollm2-135m-instruct-int8 --task summarize "A long text …"

Example: kobako run dist/all-minilm-l6-v2-int8 --task embed "A man eats." "Someone has a meal."

Example: kobako run dist/my-set --task translate --to fr "How much does this book cost?"
"""


@click.command("run", epilog=EXAMPLES)
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--task", help="One of the package's tasks [default: its first].")
@click.option("--to", help="Target language of a translation, such as fr.")
@click.option("--from", "source", help="Language of the text, where package or set read several [default: English].")
@click.option("--domain", help="Of a set: what the text is about, where the set chooses by it, such as finance.")
@click.option("--target", "-t", help="executorch, coreml or litert [default: the first that runs here].")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer [default: the task's].")
@json_option
@quiet_option
def command(
    package: Path,
    texts: tuple[str, ...],
    task: str | None,
    to: str | None,
    source: str | None,
    domain: str | None,
    target: str | None,
    max_tokens: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run PACKAGE on TEXT (or on standard input), in the target's real runtime on this machine; the answer streams.

    Of a set of packages, the member that its table names for the task answers.

    A package that embeds prints the vector as JSON, or the cosine of two texts; one that classifies prints its labels
    with their probabilities, one that fills in a masked word the likeliest words. One that answers questions takes a
    question and a passage, and prints the words of the passage that are the answer. One that tags prints the words that
    it has a label for.
    """
    from ..codec import to_json
    from ..errors import UsageError
    from ..reprove import Wanted, is_encoder, run_package

    package, task, source = _member(package, task, source, to, domain)
    given = texts or (_standard_input(),)
    if not all(text.strip() for text in given):
        raise UsageError("the text is empty.", "Give some words.")
    if is_encoder(package):
        if to is not None or source is not None or max_tokens is not None:
            raise UsageError("this package writes no text.", "Leave --to, --from and --max-tokens out.")
        _read(package, target, task, given, as_json=as_json, quiet=quiet)
        return
    if len(given) > 1:
        raise UsageError(f"{len(given)} texts were given, this package takes one.", "Put it between quotes.")

    def show(piece: str) -> None:
        if not as_json:
            click.echo(piece, nl=False)

    wanted = Wanted(text=given[0], task=task, to=to, source=source, max_new_tokens=max_tokens)
    said = run_package(package, target, wanted, show)
    if as_json:
        print_json(to_json(said))
        return
    click.echo()
    if not quiet:
        rate = (said.generated_tokens - 1) / said.decode_s if said.decode_s and said.generated_tokens > 1 else 0.0
        read = f"{said.prompt_tokens} tokens read in {said.prefill_s:.2f} s"
        click.echo(f"[{read}, {said.generated_tokens} said at {rate:.0f} tok/s]", err=True)


def _member(
    package: Path, task: str | None, source: str | None, to: str | None, domain: str | None
) -> tuple[Path, str | None, str | None]:
    """The package that shall run, its task, and the source language it is to be told: of a set, what its table says."""
    from ..errors import UsageError
    from ..manifest import read_manifest
    from ..sets.check import package_for
    from ..sets.table import is_set

    if is_set(package):
        member, route = package_for(package, task, source=source, to=to, domain=domain)
        tasks = read_manifest(member)["tasks"]
        told = any(one["name"] == route.task and one.get("sources") for one in tasks)
        return member, route.task, source if told else None  # others are of one language, by which they were chosen
    if domain is not None:
        raise UsageError(f"{package} is no set of packages.", "Leave --domain out.")
    return package, task, source


def _standard_input() -> str:
    from ..errors import UsageError

    if sys.stdin.isatty():
        raise UsageError("there is no text to work on.", "Give it as an argument, or on standard input.")
    return sys.stdin.read()


def _read(
    package: Path, target: str | None, task: str | None, texts: tuple[str, ...], *, as_json: bool, quiet: bool
) -> None:
    """What an encoder's package answers to one text, or to two."""
    import json

    from ..codec import to_json
    from ..errors import UsageError
    from ..reprove import read_texts

    if len(texts) > ENCODER_TEXTS:
        raise UsageError(f"{len(texts)} texts were given.", "Give one, or two that are compared.")
    readings = read_texts(package, target, task, texts)
    cosine = _cosine(readings[0].values, readings[1].values) if len(readings) == ENCODER_TEXTS else None
    labels = [reading.labels for reading in readings if reading.labels]
    tags = [tag for reading in readings for tag in reading.tags or ()]
    chosen = bool(labels) or readings[0].tags is not None
    if as_json:
        shown = [one if one.tags is None else replace(one, values=()) for one in readings]  # logits of every token
        print_json({"texts": [to_json(one) for one in shown], "cosine": None if chosen else cosine})
    elif chosen:
        for shares in labels:
            for label, share in shares.items():
                click.echo(f"{share:8.4f}  {printable(label)}")
        for tag in tags:
            click.echo(f"{tag.share:8.4f}  {printable(tag.label)}  {printable(tag.text)}")
    elif cosine is not None:
        click.echo(f"{cosine:.6f}")
    else:
        click.echo(json.dumps([float(f"{value:.9g}") for value in readings[0].values]))
    if not quiet:
        tokens, seconds = sum(one.tokens for one in readings), sum(one.seconds for one in readings)
        click.echo(f"[{tokens} tokens read in {seconds:.3f} s]", err=True)


def _cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0
