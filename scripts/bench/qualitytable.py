"""What ``scripts/bench/quality`` prints: size and loss of every artifact, and what was promised of kobako's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from table import Ratio, Row, Summary, grid, show, verdict
from workspace import MODEL, QUALITY_TOKENS


@dataclass(frozen=True)
class Promise:
    """What a recipe's files must reach, and the rival whose loss they must be a quarter of."""

    recipe: str
    megabytes: float | None
    kl_nats: float
    top1: float
    rivals: Mapping[str, str]


PROMISES = (
    Promise("int8", None, 0.025, 0.93, {"executorch": "litert", "litert": "litert"}),
    Promise("int4", 105.0, 0.04, 0.90, {"executorch": "optimum", "litert": "optimum"}),
    Promise("int4-small", 84.0, 0.12, 0.80, {"executorch": "litert-4bit", "litert": "litert-4bit"}),
)


def quality_ratios(rows: Mapping[str, Row]) -> list[Ratio]:
    """Each promise on each target that rounds activations; Core ML, which does not, is held to the same."""
    return [
        ratio
        for promise in PROMISES
        for target in ("executorch", "litert", "coreml")
        for ratio in _of_one(promise, target, rows)
    ]


def _of_one(promise: Promise, target: str, rows: Mapping[str, Row]) -> list[Ratio]:
    own = rows.get(f"kobako-{promise.recipe}-{target}")
    if own is None or own.kl_nats is None or own.top1 is None or own.size_bytes is None:
        return []
    name, size = f"{promise.recipe}, {target}", own.size_bytes / 1e6
    ratios = [
        Ratio(f"{name}: KL", f"{own.kl_nats:.3f} nats", f"≤ {promise.kl_nats:g}", own.kl_nats <= promise.kl_nats),
        Ratio(f"{name}: top-1", f"{own.top1:.1%}", f"≥ {promise.top1:.0%}", own.top1 >= promise.top1),
    ]
    if promise.megabytes is not None:
        ratios.append(Ratio(f"{name}: size", f"{size:.1f} MB", f"≤ {promise.megabytes:g}", size <= promise.megabytes))
    rival = rows.get(promise.rivals.get(target, ""))
    if rival is not None and rival.kl_nats is not None and rival.size_bytes is not None:
        share, bytes_share = own.kl_nats / rival.kl_nats, own.size_bytes / rival.size_bytes
        shown = f"{share:.3f} at {bytes_share:.2f} × the bytes"
        ratios.append(
            Ratio(f"{name}: KL ÷ {rival.name}'s", shown, "≤ 0.25 at ≤ 1", share <= 0.25 and bytes_share <= 1.0)
        )
    return ratios


def quality_markdown(summary: Summary) -> str:
    """Table and promises as Markdown."""
    rows = [
        (row.name, row.maker, show(row.size_bytes, "{:.1f} MB", 1e6), show(row.kl_nats, "{:.2g}"),
         show(row.top1, "{:.1%}"), row.remark)
        for row in summary.rows
    ]  # fmt: skip
    cells = [(ratio.name, ratio.value, ratio.demand, verdict(ratio.holds)) for ratio in summary.ratios]
    lines = [
        f"## {MODEL}: what each file lost", "",
        *grid(("artifact", "made by", "size", "KL nats", "top-1", ""), rows), "",
        *grid(("promise", "measured", "demanded", "holds"), cells), "",
        f"Against the float32 original on the first {QUALITY_TOKENS} tokens of kobako's proof text, each in its own "
        "runtime, token by token; Core ML in kobako's MIL interpreter in emulated float16.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
