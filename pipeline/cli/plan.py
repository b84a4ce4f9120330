"""``kobako plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    cache_option,
    chosen_options,
    chosen_recipe,
    chosen_targets,
    context_option,
    json_option,
    kv_cache_option,
    open_cache,
    print_json,
    recipe_option,
    slice_option,
    target_option,
)

if TYPE_CHECKING:
    from rich.table import Table

    from ..contracts import KvCache
    from ..mixture import Mixture

SHOWN_POINTS = 10


@click.command("plan", epilog="Example: kobako plan smollm2-135m-instruct --recipe int4")
@click.argument("model")
@target_option
@recipe_option
@slice_option
@context_option
@kv_cache_option
@cache_option
@json_option
def command(
    model: str,
    targets: tuple[str, ...],
    recipe: str | None,
    slice_text: str,
    context_tokens: int | None,
    kv_cache: KvCache,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Show the stages of building MODEL, what is cached, and the memory, disk and package size it will take.

    Downloads and writes nothing.
    """
    from ..codec import to_json
    from ..plan import plan
    from ..run import Request

    request = Request(
        model=model,
        targets=chosen_targets(targets),
        recipe=chosen_recipe(recipe),
        slice=slice_text,
        options=chosen_options(context_tokens, kv_cache),
        own_context=context_tokens is None,
    )
    made = plan(request, open_cache(cache_dir))
    if as_json:
        print_json(to_json(made))
        return
    from rich.table import Table

    from ..report.words import human_bytes
    from .tables import console

    subject = f"{made.model}, slice {made.slice}" if made.slice else made.model
    table = Table(title=f"{subject}: {made.parameters / 1e6:.0f} M parameters" if made.parameters else subject)
    for name in ("stage", "state", "peak RSS, about"):
        table.add_column(name, justify="left" if name != "peak RSS, about" else "right")
    for step in made.steps:
        table.add_row(step.stage, step.state, human_bytes(step.rss_bytes) if step.rss_bytes else "")
    out = console()
    out.print(table)
    if made.weights_bytes:
        out.print(
            f"Weights per target about {human_bytes(made.weights_bytes)}; disk about {human_bytes(made.disk_bytes)}."
        )
    if any(made.kv_cache_bytes.values()):
        sizes = ", ".join(f"{name} {human_bytes(size)}" for name, size in made.kv_cache_bytes.items())
        out.print(f"KV cache of {made.context_tokens} tokens: {sizes}.")
    if made.curve:
        out.print(_curve(made.curve))
    out.print(f"Memory available: {human_bytes(made.available_bytes)}." + (f" {made.note}" if made.note else ""))


def _curve(points: tuple[Mixture, ...]) -> Table:
    """The size-quality curve, at most SHOWN_POINTS of it."""
    from rich.table import Table

    table = Table(title="mixtures of 4 and 8 bits (kobako build --size-budget … or --max-kl …)")
    for name in ("weights", "KL of the weights", "KL with int8 activations", "parts in 8 bits"):
        table.add_column(name, justify="right")
    every = max(1, len(points) // SHOWN_POINTS)
    for number, point in enumerate(points):
        if number % every == 0 or number == len(points) - 1:
            table.add_row(
                f"{point.weights_bytes / 1e6:.1f} MB", f"{point.weights_loss_nats:.3f}", f"{point.loss_nats:.3f}",
                str(len(point.wide)),
            )  # fmt: skip
    return table
