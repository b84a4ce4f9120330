"""``kobako bench``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option, print_json, quiet_option, target_option


@click.command("bench", epilog="Example: kobako bench dist/smollm2-135m-instruct-int8 --target litert")
@click.argument("package", type=click.Path(path_type=Path))
@target_option
@json_option
@quiet_option
def command(package: Path, targets: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Time PACKAGE in its engines: load, first token, prefill, decode, memory, and the share of the memory's bandwidth.

    A prompt of 128 tokens, 64 tokens decoded, medians of three runs; an encoder only reads 128 tokens.
    """
    from rich.table import Table

    from ..codec import to_json
    from ..report.words import human_bytes, human_seconds
    from ..reprove import bench_package
    from .display import observer
    from .tables import console, number

    with observer(quiet) as watching:
        measured = bench_package(package, targets, watching)
    if as_json:
        print_json({name: to_json(one) for name, one in measured.items()})
        return
    table = Table(title=str(package))
    for name in (
        "target",
        "engine",
        "load",
        "first token",
        "prefill tok/s",
        "decode tok/s",
        "of bandwidth",
        "peak RSS",
    ):
        table.add_column(name)
    for name, one in measured.items():
        table.add_row(
            name, one.engine, human_seconds(one.load_s), human_seconds(one.first_token_s),
            f"{one.prefill_tokens_per_s:.0f}", number(one.decode_tokens_per_s, ".0f"),
            number(one.bandwidth_share, ".0%"), human_bytes(one.peak_rss_bytes),
        )  # fmt: skip
    out = console()
    out.print(table)
    if any("interpreter" in one.engine for one in measured.values()):
        out.print("kobako's MIL interpreter says nothing about the speed of a phone.", style="dim")
