"""``kobako run``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import json_option, print_json, quiet_option


@click.command("run", epilog='Example: kobako run dist/smollm2-135m-instruct-int8 --task summarize "A long text …"')
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option("--task", help="One of the package's tasks [default: its first].")
@click.option("--to", help="Target language of a translation, such as fr.")
@click.option("--target", "-t", help="executorch, coreml or litert [default: the first that runs here].")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer [default: the task's].")
@json_option
@quiet_option
def command(
    package: Path,
    text: str | None,
    task: str | None,
    to: str | None,
    target: str | None,
    max_tokens: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run PACKAGE on TEXT (or on standard input), in the target's real runtime on this machine; the answer streams."""
    from ..codec import to_json
    from ..errors import UsageError
    from ..reprove import Wanted, run_package

    if text is None:
        if sys.stdin.isatty():
            raise UsageError("there is no text to work on.", "Give it as an argument, or on standard input.")
        text = sys.stdin.read()
    if not text.strip():
        raise UsageError("the text is empty.", "Give some words.")

    def show(piece: str) -> None:
        if not as_json:
            click.echo(piece, nl=False)

    said = run_package(package, target, Wanted(text=text, task=task, to=to, max_new_tokens=max_tokens), show)
    if as_json:
        print_json(to_json(said))
        return
    click.echo()
    if not quiet:
        rate = (said.generated_tokens - 1) / said.decode_s if said.decode_s and said.generated_tokens > 1 else 0.0
        read = f"{said.prompt_tokens} tokens read in {said.prefill_s:.2f} s"
        click.echo(f"[{read}, {said.generated_tokens} said at {rate:.0f} tok/s]", err=True)
