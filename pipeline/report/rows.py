"""The table that all outputs share: one row per figure, one cell per target; encoders have rows of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import encoder, words
from .facts import TargetFacts, targets_of


@dataclass(frozen=True)
class Cell:
    """One figure of the table; `note` qualifies it."""

    text: str
    note: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure for every target, and what it means."""

    label: str
    meaning: str
    cells: tuple[Cell, ...]


SECOND = {
    False: ("Fidelity, prefill", "the same, many tokens at once"),
    True: ("Fidelity, padded", "the same, other tokens masked behind the source"),
}


def is_seq2seq(data: Mapping[str, Any]) -> bool:
    """Whether the report is of an encoder-decoder."""
    return bool(data.get("kind") == "seq2seq")


def table(data: Mapping[str, Any]) -> list[Row]:
    """The proof's table: target × figures, one row per figure."""
    targets = targets_of(data)

    def row(label: str, meaning: str, cell: Callable[[TargetFacts], Cell]) -> Row:
        return Row(label, meaning, tuple(cell(target) for target in targets))

    if encoder.is_encoder(data):
        task = data["head"]["task"]
        return [
            row("Verdict", "whether every check holds", _verdict),
            row("Size", "all files of this format", _size),
            row("Fidelity", "against the quantized model, text by text", lambda t: _answers(t, task)),
            row("Quality", "the quantized model against the original", lambda t: _read_quality(t, task)),
            row("Reading a text", "tokens per second", lambda t: _speed(t, "prefill_tokens_per_s")),
            *_costs(row),
        ]
    return [
        row("Verdict", "whether every check holds", _verdict),
        row("Size", "all files of this format", _size),
        row("Fidelity, decode", "against the quantized model, token by token", lambda t: _agreement(t, "decode")),
        row(*SECOND[is_seq2seq(data)], lambda t: _agreement(t, "prefill")),
        row("Quality", "the quantized model against the original", _quality),
        row("Same text", "prompts continued exactly as the reference does", _greedy),
        row("Reading a prompt", "prefill, tokens per second", lambda t: _speed(t, "prefill_tokens_per_s")),
        row("Writing an answer", "decode, tokens per second", lambda t: _speed(t, "decode_tokens_per_s")),
        row("Share of the limit", "decode speed ÷ what the memory's bandwidth allows", _share),
        *_costs(row),
    ]


def _costs(row: Callable[[str, str, Callable[[TargetFacts], Cell]], Row]) -> list[Row]:
    return [
        row("Memory to run", "peak resident memory of the engine", _run_memory),
        row("Memory to build", "largest process of export and proof", _build_memory),
        row("Time to build", "export and proof", lambda t: Cell(words.human_seconds(t.entry["build_seconds"]))),
    ]


def _answers(target: TargetFacts, task: str) -> Cell:
    found = target.figure("fidelity", "texts")
    if not found:
        return Cell(words.NOTHING, "not compared")
    good = None if all(check["passed"] for check in target.checks if check["part"] == "fidelity") else False
    return Cell(encoder.closeness(found, task), f"largest error {words.small(found['largest_error'])}", good)


def _read_quality(target: TargetFacts, task: str) -> Cell:
    found = target.figure("quality")
    if not found:
        return Cell(words.NOTHING, "not compared")
    good = None if all(check["passed"] for check in target.checks if check["part"] == "quality") else False
    return Cell(encoder.closeness(found, task, "quality_"), encoder.quality_note(found, task), good)


def _verdict(target: TargetFacts) -> Cell:
    note = "" if target.passed else f"{len(target.failures)} of {words.count(len(target.checks), 'check')}"
    return Cell("passes" if target.passed else "fails", note, target.passed)


def _size(target: TargetFacts) -> Cell:
    """The sum; where several files share it, also each of them, since an app may need only one."""
    large = [(name, size) for name, size in target.entry["files"].items() if size >= 0.2 * target.size_bytes]
    each = ", ".join(f"{name.rpartition('/')[2]} {words.human_bytes(size)}" for name, size in large)
    return Cell(words.human_bytes(target.size_bytes), each if len(large) > 1 else "")


def _agreement(target: TargetFacts, way: str) -> Cell:
    found = target.figure("fidelity", way)
    if not found:
        return Cell(words.NOTHING, "not compared")
    checks = [check for check in target.checks if check["name"] in (f"{way} KL", f"{way} top-1")]
    good = None if all(check["passed"] for check in checks) else False
    return Cell(f"KL {words.small(found['kl_nats'])}", f"same token {words.percent(found['top1'])}", good)


def _quality(target: TargetFacts) -> Cell:
    found = target.figure("quality")
    if not found:
        return Cell(words.NOTHING, "not compared")
    good = None if all(check["passed"] for check in target.checks if check["part"] == "quality") else False
    return Cell(f"KL {words.small(found['kl_nats'])}", f"same token {words.percent(found['top1'])}", good)


def _greedy(target: TargetFacts) -> Cell:
    answers, check = target.figure("greedy"), target.check("greedy text")
    if not answers:
        return Cell(words.NOTHING, "not compared")
    same = sum(bool(answer["same"]) for answer in answers)
    ties = sum(bool(answer["tie"]) for answer in answers)
    return Cell(
        f"{same} of {len(answers)}",
        f"{ties} part at a near tie" if ties else "",
        False if check and not check["passed"] else None,
    )


def _measured(target: TargetFacts, cell: Callable[[Mapping[str, Any]], Cell]) -> Cell:
    return cell(target.measurement) if target.measurement else Cell(words.NOTHING, "not measured")


def _speed(target: TargetFacts, key: str) -> Cell:
    note = "interpreter, no phone speed" if target.interpreted else ""
    return _measured(target, lambda m: Cell(words.rate(m[key]), note))


def _share(target: TargetFacts) -> Cell:
    if target.measurement and target.interpreted:
        return Cell(words.NOTHING, "says nothing of an interpreter")
    return _measured(target, lambda m: Cell(words.percent(m["bandwidth_share"])))


def _build_memory(target: TargetFacts) -> Cell:
    return Cell(words.human_bytes(target.entry["peak_rss_bytes"]))


def _run_memory(target: TargetFacts) -> Cell:
    note = "of the interpreter" if target.interpreted else ""
    return _measured(target, lambda m: Cell(words.human_bytes(m["peak_rss_bytes"]), note))
