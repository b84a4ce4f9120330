"""``kobako set``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from .options import json_option, print_json

EXAMPLE = """Example: kobako set make dist/my-set --task translate=dist/gemma-3-270m-int4
--task summarize=dist/smollm2-135m-instruct-int4
"""


@click.group("set")
def command() -> None:
    """Several packages and a table of which one does what, pulled, verified and run as one."""


@command.command("make", epilog=EXAMPLE)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--task", "assigned", multiple=True, required=True, metavar="TASK=PACKAGE",
    help="PACKAGE does TASK; TASK:fr into that language, TASK:en/fr from one into another, TASK@finance for such "
    "texts. PACKAGE is a package directory, or the address of a published package. Repeatable.",
)  # fmt: skip
@click.option("--name", help="Name of the set [default: the directory's].")
@click.option("--plain-http", is_flag=True, help="Talk to an OCI registry without encryption (loopback needs no flag).")
@json_option
def make(directory: Path, assigned: tuple[str, ...], name: str | None, plain_http: bool, as_json: bool) -> None:
    """Make a set of packages in DIRECTORY: kobako-set.json, and the packages of this machine beside it.

    Tasks that are not assigned go to the only package that does them. Packages with an address stay where they are:
    a pull of the set brings them. Sign, publish, verify, pull and run the directory like a package.
    """
    from ..registry.roads import open_source
    from ..sets.make import make_set, parse_assignment
    from ..sets.table import document

    wanted = [parse_assignment(text) for text in assigned]
    opened = partial(open_source, plain_http=plain_http)
    made = make_set(directory, name or directory.absolute().name, wanted, opened)
    if as_json:
        print_json(document(made))
        return
    click.echo(f"{directory}: a set of {len(made.members)} packages")
    for route in made.routes:
        click.echo(f"  {route} → {route.member}")
