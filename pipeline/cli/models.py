"""``kobako models``."""

from __future__ import annotations

import click

from ..contracts import ModelKind
from .options import json_option, print_json


@click.command("models", epilog="Example: kobako models --support")
@click.option("--support", is_flag=True, help="List architectures instead, with the fidelity measured on each target.")
@json_option
def command(support: bool, as_json: bool) -> None:
    """List the models kobako knows by name. Any supported Hub id, directory or .gguf file works as well."""
    if support:
        show_support(as_json)
    else:
        show_models(as_json)


def show_support(as_json: bool) -> None:
    """Architectures and the divergence of their artifacts from eager PyTorch."""
    from ..codec import to_json
    from ..support import CASES, of_kind, quirk_of, supported

    if as_json:
        print_json([to_json(entry) for entry in supported()])
        return
    from rich.table import Table

    from .tables import console

    titles: tuple[tuple[ModelKind, str], ...] = (
        ("decoder", "Mean KL from eager PyTorch, nats, on tiny random models"),
        ("encoder", "Encoders: 1 − mean cosine of vectors, mean KL of labels in nats"),
        ("seq2seq", "Encoder-decoders: mean KL of an answer from eager PyTorch, nats"),
    )
    for kind, title in titles:
        table = Table(title=title, title_justify="left")
        for name in ("architecture", "proven with", *CASES):
            table.add_column(name)
        for entry in of_kind(kind):
            for name, figures in entry.rows:
                table.add_row(name, quirk_of(entry), *(f"{figures.get(case, float('nan')):.1e}" for case in CASES))
        console().print(table)


def show_models(as_json: bool) -> None:
    """The catalogue."""
    from ..catalogue import entries
    from ..codec import to_json

    if as_json:
        print_json([to_json(entry) | {"supported": entry.supported} for entry in entries()])
        return
    from rich.table import Table

    from .tables import console

    table = Table()
    for name in ("name", "parameters", "licence", "tasks", "supported", "description"):
        table.add_column(name)
    for entry in entries():
        table.add_row(
            entry.name, f"{entry.parameters / 1e6:,.0f} M", entry.licence, ", ".join(entry.tasks),
            "yes" if entry.supported else "not yet", entry.description,
        )  # fmt: skip
    console().print(table)
