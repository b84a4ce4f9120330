"""The plots of the report: what is drawn, and the one sentence under it that says what to see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from . import words
from .facts import TargetFacts, targets_of
from .svg import Axes, Bar, Level, Series, bar_chart, decades, log_plot, stack_chart

COLOURS = 6
GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Embedding", "p1", ("embed_tokens", "word_embeddings", "position_embeddings", "token_type_embeddings")),
    ("Head", "p2", ("lm_head",)),
    (
        "Attention", "p3",
        ("q_proj", "k_proj", "v_proj", "o_proj", "query", "key", "value", "q_lin", "k_lin", "v_lin", "out_lin"),
    ),
    ("Feed-forward", "p4", ("gate_proj", "up_proj", "down_proj")),
    ("Norms and biases", "p5", ("norms and biases",)),
)  # fmt: skip
PART_NAMES = {
    "embed_tokens": "embedding", "lm_head": "head", "q_proj": "query", "k_proj": "key", "v_proj": "value",
    "o_proj": "output", "gate_proj": "gate", "up_proj": "up", "down_proj": "down",
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A drawing with its sentence; `legend` pairs a style with words, `rows` are a small table under it."""

    title: str
    drawing: Markup
    sentence: str
    legend: tuple[tuple[str, str], ...] = ()
    rows: tuple[tuple[str, str, str], ...] = ()


def style_of(number: int) -> str:
    """The colour class of the n-th target."""
    return f"c{number % COLOURS + 1}"


def tokens_decades(targets: Sequence[TargetFacts]) -> tuple[int, int]:
    """One axis for the plots of all targets, so that they can be compared."""
    values: list[float] = []
    for target in targets:
        values += target.figure("fidelity", "decode", "kl_nats_per_token") or []
        values += target.figure("quality", "kl_nats_per_token") or []
        values += [gate for gate in [target.demand("decode KL")] if gate]
    return decades(values)


def tokens_plot(target: TargetFacts, number: int, ends: tuple[int, int]) -> Figure | None:
    """KL of each token of the proof text: the file's against the quantized model, over the recipe's own."""
    mine = target.figure("fidelity", "decode", "kl_nats_per_token")
    if not mine:
        return None
    recipe = target.figure("quality", "kl_nats_per_token") or []
    mean, gate = target.figure("fidelity", "decode", "kl_nats"), target.demand("decode KL")
    held = gate is None or mean <= gate
    levels = (
        [Level(gate, f"allowed for the file: {words.small(gate)} on average", "gate", below=not held)] if gate else []
    )
    if mean and math.isfinite(mean):
        levels.append(Level(mean, f"average of the file: {words.small(mean)}", style_of(number), below=held))
    broken = sum(not math.isfinite(value) for value in mine)
    sentence = (
        f"Each dot is one of {len(mine)} tokens of the proof text: how far {target.title}'s prediction is from the "
        "quantized model's (colour), and the quantized model's from the original (grey); lower is closer."
    )
    if broken:
        sentence += f" {words.count(broken, 'token')} gave no number at all and lie at the top."
    drawing = log_plot(
        f"tokens-{number}",
        f"KL divergence per token, {target.title}",
        f"{len(mine)} tokens, average {words.small(mean)} nats, largest {words.small(_largest(mine))} nats.",
        [Series(recipe, "quiet"), Series(mine, style_of(number))],
        levels,
        Axes(*ends, "first token", f"token {len(mine)}"),
    )
    legend = (
        (style_of(number), "file against quantized model (fidelity)"),
        ("quiet", "quantized model against original (quality)"),
    )
    return Figure("KL divergence along the proof text, in nats", drawing, sentence, legend if recipe else legend[:1])


def layers_plot(targets: Sequence[TargetFacts]) -> Figure | None:
    """Relative error of each layer's keys, for the runtimes that show them."""
    shown = [(n, t, t.figure("fidelity", "key_error_per_layer")) for n, t in enumerate(targets)]
    drawn = [(n, t, errors) for n, t, errors in shown if errors]
    if not drawn:
        return None
    hidden = [t.title for _, t, errors in shown if not errors]
    last = max(len(errors) for _, _, errors in drawn) - 1
    sentence = (
        "How far the keys that each layer writes into its cache are from the quantized model's, layer by layer: "
        "a fault in the conversion shows as a jump at the layer where it happens."
    )
    if hidden:
        does = "does" if len(hidden) == 1 else "do"
        sentence += f" {words.listed(hidden)} {does} not show the layers in this runtime."
    description = "; ".join(
        f"{t.title}: from {words.small(errors[0])} in layer 0 to {words.small(errors[-1])} in layer {len(errors) - 1}"
        for _, t, errors in drawn
    )
    drawing = log_plot(
        "layers",
        "Relative error of the keys per layer",
        description,
        [Series(errors, f"{style_of(n)} big", line=True) for n, _, errors in drawn],
        [],
        Axes(*decades([value for _, _, errors in drawn for value in errors]), "layer 0", f"layer {last}"),
    )
    return Figure("Error by layer", drawing, sentence, tuple((style_of(n), t.title) for n, t, _ in drawn))


def size_plot(data: Mapping[str, Any]) -> Figure | None:
    """Where the bytes of the weights are."""
    sizes: Mapping[str, int] = data["weights_bytes_by_part"]
    total = sum(sizes.values())
    if not total:
        return None
    known = {part for _, _, parts in GROUPS for part in parts}
    others = ("Other", "p6", tuple(part for part in sizes if part not in known))
    segments, rows = [], []
    for label, style, parts in (*GROUPS, others):
        present = [(part, sizes[part]) for part in parts if sizes.get(part)]
        if not present:
            continue
        group = sum(size for _, size in present)
        segments.append((label, words.human_bytes(group), group / total, style))
        inside = ", ".join(f"{PART_NAMES.get(part, part)} {words.human_bytes(size)}" for part, size in present)
        value = f"{words.human_bytes(group)} · {words.percent(group / total)}"
        rows.append((style, label, value if len(present) == 1 else f"{value} ({inside})"))
    files = ", ".join(f"{target.title} {words.human_bytes(target.size_bytes)}" for target in targets_of(data))
    sentence = (
        f"The stored weights take {words.human_bytes(total)}, the same integers in every format; "
        f"a format's files also hold its program and tokenizer: {files}."
    )
    drawing = stack_chart("size", "Stored bytes by part of the model", segments)
    return Figure("Size by part of the model", drawing, sentence, rows=tuple(rows))


def speed_plots(targets: Sequence[TargetFacts]) -> list[Figure]:
    """Bars of prefill and decode speed; decode also marks what the memory's bandwidth allows. Encoders only read."""
    measured = [target.measurement for target in targets if target.measurement]
    if not measured:
        return []
    if all(one["decode_tokens_per_s"] is None for one in measured):
        said = "Tokens per second while reading a text of up to 128 tokens, on the machine that built this."
        return [_speed_plot(targets, "prefill", "Reading a text", said)]
    return [
        _speed_plot(
            targets, "decode", "Writing an answer (decode)",
            "Tokens per second while answering, on the machine that built this; the upright line is the most that this "
            "machine's memory could give, since every token reads all the weights once.",
        ),
        _speed_plot(
            targets, "prefill", "Reading a prompt (prefill)",
            "Tokens per second while reading a prompt of up to 128 tokens, on the machine that built this.",
        ),
    ]  # fmt: skip


def _speed_plot(targets: Sequence[TargetFacts], way: str, title: str, sentence: str) -> Figure:
    key = f"{way}_tokens_per_s"
    speeds = [target.measurement[key] if target.measurement else 0.0 for target in targets]
    limits = [_limit(target) if way == "decode" else None for target in targets]
    most = max([speed for speed in speeds if math.isfinite(speed)] + [limit for limit in limits if limit] + [1e-9])
    bars = [
        Bar(
            target.title,
            _speed_words(target, speed),
            speed / most if math.isfinite(speed) else 0.0,
            style_of(number),
            hatched=target.interpreted,
            mark=limit / most if limit else None,
        )
        for number, (target, speed, limit) in enumerate(zip(targets, speeds, limits, strict=True))
    ]
    if any(target.interpreted and target.measurement for target in targets):
        sentence += " Hatched: run by an interpreter, which says nothing about a phone."
    return Figure(title, bar_chart(way, title, bars), sentence)


def _speed_words(target: TargetFacts, speed: float) -> str:
    if not target.measurement:
        return "not measured"
    return words.rate(speed) + (" in an interpreter" if target.interpreted else "")


def _limit(target: TargetFacts) -> float | None:
    """Tokens per second that the memory's bandwidth allows."""
    found = target.measurement
    if not found or target.interpreted or not found["bandwidth_share"] > 0:
        return None
    limit = found["decode_tokens_per_s"] / found["bandwidth_share"]
    return float(limit) if math.isfinite(limit) else None


def stages_plot(stages: Sequence[Mapping[str, Any]]) -> Figure | None:
    """How long each stage took; what came from the cache is hatched."""
    if not stages:
        return None
    longest = max([stage["seconds"] for stage in stages] + [1e-9])
    bars = [
        Bar(
            stage["stage"],
            words.human_seconds(stage["seconds"]) + (" · from the cache" if stage["cached"] else ""),
            stage["seconds"] / longest,
            "stage",
            hatched=bool(stage["cached"]),
        )
        for stage in stages
    ]
    made = sum(stage["seconds"] for stage in stages if not stage["cached"])
    cached = sum(bool(stage["cached"]) for stage in stages)
    sentence = f"Work done in this build: {words.human_seconds(made)}, summed over stages that may run side by side."
    if cached:
        sentence += (
            f" {words.count(cached, 'stage')} of {len(stages)} came from the cache (hatched: the time it once took)."
        )
    return Figure("Time by stage", bar_chart("stages", "Build time by stage", bars), sentence)


def _largest(values: Sequence[float]) -> float:
    return max(values, key=lambda value: value if not math.isnan(value) else math.inf)
