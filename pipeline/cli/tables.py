"""Tables on stdout, from the JSON values that packages carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ..report.encoder import closeness, quality_note
from ..report.facts import cache_words
from ..report.words import human_bytes, human_seconds


def console() -> Console:
    """Standard output, wide enough for tables when it is not a terminal."""
    out = Console()
    return out if out.is_terminal else Console(width=150)


def number(value: float | None, form: str) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:{form}}"


COLUMNS = (
    "target", "proof", "size", "fidelity KL", "top-1", "quality KL", "top-1", "prefill tok/s", "decode tok/s",
    "of bandwidth", "peak RSS", "build",
)  # fmt: skip


ENCODER_COLUMNS = (
    "target", "proof", "size", "fidelity", "largest error", "quality", "retrieval or labels", "tokens/s", "peak RSS",
    "build",
)  # fmt: skip


def result_table(data: Mapping[str, Any]) -> Table:
    """One row per target of a report: size, fidelity, quality, speed, memory, time."""
    table = Table(
        title=f"{data['name']} {data['recipe']['name']}, context {data['context_tokens']}{cache_words(data)}",
        title_justify="left",
    )
    head = data.get("head")
    for name in ENCODER_COLUMNS if head else COLUMNS:
        table.add_column(name, justify="left" if name in ("target", "proof") else "right")
    for name, target in data["targets"].items():
        table.add_row(*(_encoder_row(name, target, head["task"]) if head else _row(name, target)))
    return table


def _row(name: str, target: Mapping[str, Any]) -> list[str]:
    figures, speed = target["report"]["figures"], target["measurement"]
    fidelity, quality = figures.get("fidelity", {}).get("decode"), figures.get("quality")
    return [
        name,
        "[green]passed[/]" if target["report"]["passed"] else "[red]FAILED[/]",
        human_bytes(sum(target["files"].values())),
        f"{fidelity['kl_nats']:.1e}" if fidelity else "–",
        f"{fidelity['top1']:.1%}" if fidelity else "–",
        f"{quality['kl_nats']:.3f}" if quality else "–",
        f"{quality['top1']:.1%}" if quality else "–",
        *(_speed(speed) if speed else ["–"] * 3),
        human_bytes(target["peak_rss_bytes"]),
        human_seconds(target["build_seconds"]),
    ]


def _encoder_row(name: str, target: Mapping[str, Any], task: str) -> list[str]:
    """The same of an encoder, which answers with vectors or labels."""
    figures, speed = target["report"]["figures"], target["measurement"]
    fidelity, quality = figures.get("fidelity", {}).get("texts"), figures.get("quality")
    return [
        name,
        "[green]passed[/]" if target["report"]["passed"] else "[red]FAILED[/]",
        human_bytes(sum(target["files"].values())),
        closeness(fidelity, task) if fidelity else "–",
        f"{fidelity['largest_error']:.1e}" if fidelity else "–",
        closeness(quality, task, "quality_") if quality else "–",
        quality_note(quality, task) if quality else "–",
        f"{speed['prefill_tokens_per_s']:.0f}" if speed else "–",
        human_bytes(target["peak_rss_bytes"]),
        human_seconds(target["build_seconds"]),
    ]


def _speed(speed: Mapping[str, Any]) -> list[str]:
    return [
        f"{speed['prefill_tokens_per_s']:.0f}",
        f"{speed['decode_tokens_per_s']:.0f}",
        f"{speed['bandwidth_share']:.0%}",
    ]
