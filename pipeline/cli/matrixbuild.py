"""``kobako build --matrix``: many models, one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import print_json

if TYPE_CHECKING:
    from ..executors import Done, Executor


@dataclass(frozen=True, kw_only=True)
class MatrixOptions:
    """What all jobs of a matrix share; see `executors.Order`."""

    out: str
    cache: str
    shared: str
    measure: bool
    offline: bool
    allow_failing: bool
    licence_policy: str


def check_one(matrix: Path, model: str | None) -> Path:
    """Raise UsageError when both a model and a list are given."""
    from ..errors import UsageError

    if model is not None:
        raise UsageError(f"both {model} and --matrix {matrix} are given.", "Give one of them.")
    return matrix


def check_alone(given: Mapping[str, object]) -> None:
    """Raise UsageError for an option of `given` that was used: the list says it for each model, or nothing does."""
    from ..errors import UsageError

    for option, value in given.items():
        if value:
            raise UsageError(
                f"{option} is for one model; a --matrix does not take it.",
                "Drop it; recipes, targets and contexts stand in the list (docs/publishing.md).",
            )


def build_matrix(
    matrix: Path, options: MatrixOptions, executor: str, address: str | None, *, as_json: bool, quiet: bool
) -> None:
    """Build every job, print the table, and raise the first failure."""
    from ..codec import to_json
    from ..executors import Order
    from ..matrix import read_matrix
    from .display import observer

    place = options.out if "://" in options.out else str(Path(options.out).absolute())
    shared = asdict(options) | {"out": place}
    orders = [Order(job=job, **shared) for job in read_matrix(matrix)]
    with observer(quiet) as watching:
        done = _executor(executor, address).run(orders, watching)
    if as_json:
        print_json([to_json(one) for one in done])
    else:
        _show(done)
    for one in done:
        if failure := one.failure():
            raise failure


def _executor(name: str, address: str | None) -> Executor:
    if name == "ray":
        from ..executors.ray_cluster import RayExecutor

        return RayExecutor(address)
    from ..executors.local import LocalExecutor

    return LocalExecutor()


def _show(done: Sequence[Done]) -> None:
    from rich.table import Table

    from ..report.words import human_bytes, human_seconds
    from .tables import console

    table = Table()
    for name in ("package", "result", "targets proven", "machine", "time", "peak RSS"):
        table.add_column(name)
    for one in done:
        result = f"[red]{one.error}[/]" if one.error else "[green]written[/]"
        peak = human_bytes(one.peak_rss_bytes) if one.peak_rss_bytes else ""
        table.add_row(one.name, result, ", ".join(one.proven), one.machine, human_seconds(one.seconds), peak)
    console().print(table)
    for one in done:
        if one.error:
            click.echo(f"{one.name}: {one.what} {one.next_step}", err=True)
