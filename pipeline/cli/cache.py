"""``kobako cache``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .options import cache_option, json_option, open_cache, parse_bytes, print_json

DAY_S = 86400.0


@click.group("cache", epilog="Example: kobako cache prune --older-than 30")
def command() -> None:
    """List or prune the cache."""


@command.command("ls")
@cache_option
@json_option
def ls(cache_dir: Path | None, as_json: bool) -> None:
    """List what is in the cache, with the days since its last use."""
    from ..report.words import human_bytes

    cache = open_cache(cache_dir)
    found: list[dict[str, Any]] = [
        {"stage": stage, "key": key, "size_bytes": size, "age_days": round((time.time() - used) / DAY_S, 2)}
        for stage, key, size, used in cache.entries()
    ]
    if as_json:
        print_json(found)
        return
    for entry in found:
        click.echo(
            f"{entry['stage']:<10} {entry['key']}  {human_bytes(entry['size_bytes']):>9}  {entry['age_days']:.1f} days"
        )
    click.echo(f"{len(found)} entries, {human_bytes(sum(entry['size_bytes'] for entry in found))} in {cache.root}")


@command.command("prune")
@click.option(
    "--older-than", "days", type=click.FloatRange(0), default=30.0, show_default=True, help="Days since the last use."
)
@click.option("--max-size", help="Then remove what was used longest ago until this much is left, like 10GB.")
@cache_option
def prune(days: float, max_size: str | None, cache_dir: Path | None) -> None:
    """Remove old results; downloads stay."""
    from ..report.words import human_bytes

    cache, limit = open_cache(cache_dir), parse_bytes(max_size)
    entries = sorted(cache.entries(), key=lambda entry: entry[3])
    total = sum(entry[2] for entry in entries)
    freed = 0
    for stage, key, size, used in entries:
        too_old = time.time() - used > days * DAY_S
        too_much = limit is not None and total - freed > limit
        if too_old or too_much:
            cache.remove(stage, key)
            freed += size
    click.echo(f"freed {human_bytes(freed)} of {human_bytes(total)}")
