"""``kobako matrix``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("matrix", epilog="Example: kobako matrix models.toml")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def command(file: Path) -> None:
    """Print the jobs of FILE as JSON on one line, as GitHub's `strategy.matrix` takes them.

    FILE lists models, recipes, targets and where to publish; docs/publishing.md shows one.
    """
    from ..codec import to_json
    from ..matrix import read_matrix

    click.echo(json.dumps({"include": [to_json(job) for job in read_matrix(file)]}, ensure_ascii=False))
