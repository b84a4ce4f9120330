"""From the steps' results to one table and the ratios that were promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from artifacts import KOBAKO, LLAMA, PEERS, RECIPES, Artifact
from workspace import MODEL, QUALITY_TOKENS, Workspace

MAKERS = {
    "optimum": "optimum-cli export executorch (8da4w g32, embedding 8w)",
    "litert": "litert-torch export_hf (default int8)",
    "litert-4bit": "litert-torch export_hf (dynamic_wi4b32_afp32)",
    "coreml": "torch.jit.trace + ct.convert (stateful, fp16)",
    "llama-cpp": "llama.cpp on the Q4_1 file",
}

ONE_FOR_EACH = ("optimum", "litert", "coreml")
"""What one would run to get a file for each runtime."""


@dataclass(frozen=True)
class Row:
    """One artifact's figures; None where it was not measured or cannot be."""

    name: str
    maker: str
    wall_s: float | None
    cpu_s: float | None
    peak_rss_bytes: int | None
    size_bytes: int | None
    kl_nats: float | None
    top1: float | None
    engine: str | None
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    bandwidth_share: float | None
    remark: str


@dataclass(frozen=True)
class Ratio:
    """One promise: what was measured, what was demanded, whether it holds (None: not measured yet)."""

    name: str
    value: str
    demand: str
    holds: bool | None


@dataclass(frozen=True)
class Summary:
    """Everything the table shows."""

    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(workspace: Workspace) -> Summary:
    """Read all results that are there."""
    speeds = workspace.result("speed") or {}
    rows = [row for one in (*PEERS, *KOBAKO, LLAMA) if (row := _row(workspace, one, speeds))]
    return Summary(tuple(rows), tuple(_ratios(workspace, {row.name: row for row in rows})), tuple(_notes(workspace)))


def _row(workspace: Workspace, artifact: Artifact, speeds: Mapping[str, Any]) -> Row | None:
    made = workspace.result(artifact.step) if artifact.step else {}
    own = artifact.environment is None
    speed = speeds.get("artifacts", {}).get(artifact.name, {})
    quality = _quality(workspace, artifact)
    if made is None or not artifact.path(workspace).exists() or not (artifact.step or speed or quality):
        return None
    decode = speed.get("decode_tokens_per_s")
    target = artifact.name.rsplit("-", 1)[-1]
    return Row(
        name=artifact.name,
        maker=f"kobako build --recipe {str(artifact.step).removeprefix('kobako-')}" if own else MAKERS[artifact.name],
        wall_s=None if own else made.get("wall_s"),
        cpu_s=None if own else made.get("cpu_s"),
        peak_rss_bytes=None if own else made.get("peak_rss_bytes"),
        size_bytes=artifact.size_bytes(workspace),
        kl_nats=quality.get("kl_nats"),
        top1=quality.get("top1"),
        engine=speed.get("engine") or quality.get("runtime"),
        prefill_tokens_per_s=speed.get("prefill_tokens_per_s"),
        decode_tokens_per_s=decode,
        bandwidth_share=_share(workspace, artifact, decode, speeds),
        remark=_remark(quality, made.get("proof", {}).get(target, True)),
    )


def _quality(workspace: Workspace, artifact: Artifact) -> Mapping[str, Any]:
    step = f"quality-{artifact.step or artifact.name}"
    found: Mapping[str, Any] = (workspace.result(step) or {}).get(artifact.name, {})
    return found


def _share(workspace: Workspace, artifact: Artifact, decode: float | None, speeds: Mapping[str, Any]) -> float | None:
    """Decode speed × bytes of weights read per token ÷ memory bandwidth."""
    model = workspace.result("model")
    if decode is None or model is None:
        return None
    read = artifact.bytes_per_token(int(model["linear_parameters"]), int(model["embedding_parameters"]))
    return float(decode * read / speeds["bandwidth_bytes_per_s"])


def _remark(quality: Mapping[str, Any], proven: bool) -> str:
    if "overflow" in quality:
        return f"overflows in float16: {quality['overflow'].split('.')[0]}"
    return "" if proven else "its proof FAILED"


def _ratios(workspace: Workspace, rows: Mapping[str, Row]) -> list[Ratio]:
    own = (workspace.result("kobako-int8") or {}).get("wall_s")
    walls = [row.wall_s for name in ONE_FOR_EACH if (row := rows.get(name)) and row.wall_s is not None]
    peers_wall = sum(walls) if len(walls) == len(ONE_FOR_EACH) else None
    return [
        _ratio("three int8 targets, cold, proof included ÷ the peers' sum", own, peers_wall, 0.5),
        *(
            _at_most(
                f"second build, {recipe}", (workspace.result(f"kobako-{recipe}") or {}).get("second_wall_s"), 3, "s"
            )
            for recipe in RECIPES
        ),
        *(_at_most(f"peak RSS of any process, {recipe}", _gigabytes(workspace, recipe), 3, "GB") for recipe in RECIPES),
        _faster("decode, .litertlm int8 ÷ litert-torch's", rows, "kobako-int8-litert", "litert", 2.2),
        _faster("decode, .pte int4 ÷ optimum's", rows, "kobako-int4-executorch", "optimum", 1.0),
        *(
            _faster(
                f"decode, {target} int4 ÷ int4-nearest",
                rows,
                f"kobako-int4-{target}",
                f"kobako-int4-nearest-{target}",
                0.95,
            )
            for target in ("executorch", "litert")
        ),
        _faster("decode, .pte int8 ÷ optimum's 4-bit", rows, "kobako-int8-executorch", "optimum", None),
        _faster("decode, .pte int4 ÷ llama.cpp's Q4_1", rows, "kobako-int4-executorch", "llama-cpp", None),
    ]


def _gigabytes(workspace: Workspace, recipe: str) -> float | None:
    built = workspace.result(f"kobako-{recipe}")
    return built["peak_rss_bytes"] / 1e9 if built else None


def _ratio(name: str, value: float | None, base: float | None, limit: float) -> Ratio:
    if not value or not base:
        return Ratio(name, "–", f"≤ {limit:g}", None)
    share = value / base
    return Ratio(name, f"{share:.2f} ({value:.0f} s ÷ {base:.0f} s)", f"≤ {limit:g}", share <= limit)


def _at_most(name: str, value: float | None, limit: float, unit: str) -> Ratio:
    shown = "–" if value is None else f"{value:.2f} {unit}"
    return Ratio(name, shown, f"< {limit:g} {unit}", None if value is None else value < limit)


def _faster(name: str, rows: Mapping[str, Row], own: str, peer: str, limit: float | None) -> Ratio:
    ours, theirs = (rows[key].decode_tokens_per_s if key in rows else None for key in (own, peer))
    demand = "–" if limit is None else f"≥ {limit:g}"
    if ours is None or theirs is None:
        return Ratio(name, "–", demand, None)
    ratio = ours / theirs
    shown = f"{ratio:.2f} ({ours:.0f} ÷ {theirs:.0f} tok/s)"
    return Ratio(name, shown, demand, None if limit is None else ratio >= limit)


def _notes(workspace: Workspace) -> list[str]:
    speeds, notes = workspace.result("speed"), []
    if workspace.layers is not None:
        notes.append(f"DRY RUN on a model cut to {workspace.layers} layers: these figures mean nothing.")
    for recipe in RECIPES:
        if built := workspace.result(f"kobako-{recipe}"):
            notes.append(_build_note(recipe, built))
    notes.append(
        f"KL and top-1: against the float32 original on the first {QUALITY_TOKENS} tokens of kobako's proof text."
    )
    if speeds:
        notes.append(
            f"{speeds['threads']} threads; bandwidth {speeds['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s. Share of it: "
            "decode speed × bytes of linear weights and head read per token."
        )
    return notes + _disturbances(workspace)


def _build_note(recipe: str, built: Mapping[str, Any]) -> str:
    largest, together = built["peak_rss_bytes"] / 1e9, built["peak_sum_rss_bytes"] / 1e9
    return (
        f"kobako build --recipe {recipe}, three targets side by side, proof and speed runs included: "
        f"{built['wall_s']:.1f} s ({built['cpu_s']:.0f} CPU-seconds), again {built['second_wall_s']:.1f} s; "
        f"peak RSS of any process {largest:.2f} GB, of all together {together:.2f} GB. "
        "The cache was empty but for the downloaded weights; the peers start from a local checkpoint too."
    )


def _disturbances(workspace: Workspace) -> list[str]:
    """Which timed steps did not have the machine for themselves."""
    notes = []
    for step in (*(peer.step for peer in PEERS), *(f"kobako-{recipe}" for recipe in RECIPES), "speed"):
        made = workspace.result(step) if step else None
        if made and made["others_cpu_s"] > 0.1 * made["wall_s"]:
            notes.append(
                f"NOT QUIET: during {step} ({made['wall_s']:.0f} s) other processes used {made['others_cpu_s']:.0f} "
                f"CPU-seconds; run `peers --fresh --only {step}` again."
            )
    return notes


def markdown(summary: Summary) -> str:
    """The table, the ratios and the notes as Markdown."""
    lines = [f"## {MODEL}: kobako and the nearest tools", ""]
    lines += grid(
        ("artifact", "made by", "wall", "CPU", "peak RSS", "size", "KL nats", "top-1", "run in", "prefill tok/s",
         "decode tok/s", "of bandwidth", ""),
        [_cells(row) for row in summary.rows],
    )  # fmt: skip
    cells = [(ratio.name, ratio.value, ratio.demand, verdict(ratio.holds)) for ratio in summary.ratios]
    lines += ["", *grid(("ratio", "measured", "demanded", "holds"), cells), ""]
    return "\n".join([*lines, *(f"- {note}" for note in summary.notes)]) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    own = row.wall_s is None and row.maker.startswith("kobako")
    return (
        row.name, row.maker, "see below" if own else show(row.wall_s, "{:.0f} s"),
        "see below" if own else show(row.cpu_s, "{:.0f} s"),
        "see below" if own else show(row.peak_rss_bytes, "{:.2f} GB", 1e9), show(row.size_bytes, "{:.1f} MB", 1e6),
        show(row.kl_nats, "{:.2g}"), show(row.top1, "{:.1%}"), row.engine or "–",
        show(row.prefill_tokens_per_s, "{:.0f}"), show(row.decode_tokens_per_s, "{:.1f}"),
        show(row.bandwidth_share, "{:.0%}"), row.remark,
    )  # fmt: skip


def verdict(holds: bool | None) -> str:
    """Whether a promise holds, for people."""
    return {True: "yes", False: "**NO**", None: "–"}[holds]


def show(value: float | None, form: str, unit: float = 1.0) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else form.format(value / unit)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
