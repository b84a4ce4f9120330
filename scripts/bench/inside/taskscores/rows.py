"""From answers to the table's rows, as Markdown or JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .answers import Answer
from .items import Item
from .scores import METRICS, Interval, bootstrap

HEAD = ("package", "target", "metric", "texts", "score", "to the float model [95 %]", "beside its answers",
        "identical", "cut off")  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One speaker's answers to a task's items, beside those of the original model; all in the items' order."""

    package: str
    target: str
    items: Sequence[Item]
    answers: Sequence[Answer]
    originals: Sequence[Answer]
    max_new_tokens: int


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        engine: what ran it, by its own name.
        metric: ``ROUGE-L`` or ``chrF``, with the language behind it where only one is meant.
        texts: how many different texts were worked on.
        score: against the reference texts, 0 to 100.
        delta: how the score differs from the float model's; None in the float model's own row.
        agreement: the same metric with the float model's answers as the reference texts.
        identical: share of answers equal to the float model's, letter for letter.
        cut_off: share of answers that did not end before the task's limit of tokens: a sign of loops.
    """

    package: str
    target: str
    engine: str
    metric: str
    texts: int
    score: Interval
    delta: Interval | None
    agreement: float | None
    identical: float | None
    cut_off: float


def rows_of(asked: Asked) -> Iterator[Row]:
    """All items in one row, then one row a language."""
    languages = list(dict.fromkeys(item.to for item in asked.items if item.to))
    yield _row(asked, None)
    if len(languages) > 1:
        yield from (_row(asked, language) for language in languages)


def _row(asked: Asked, language: str | None) -> Row:
    chosen = [n for n, item in enumerate(asked.items) if language in (None, item.to)]
    items = [asked.items[n] for n in chosen]
    texts = [asked.answers[n].text.strip() for n in chosen]
    originals = [asked.originals[n].text.strip() for n in chosen]
    clusters = [item.cluster for item in items]
    name, score = METRICS[items[0].task]
    scored = [score(text, item.reference) for text, item in zip(texts, items, strict=True)]
    cut_off = _mean([asked.answers[n].generated_tokens >= asked.max_new_tokens for n in chosen])
    delta = agreement = identical = None
    if asked.answers is not asked.originals:
        before = [score(text, item.reference) for text, item in zip(originals, items, strict=True)]
        delta = bootstrap([now - then for now, then in zip(scored, before, strict=True)], clusters)
        agreement = _mean([score(text, original) for text, original in zip(texts, originals, strict=True)])
        identical = _mean([text == original for text, original in zip(texts, originals, strict=True)])
    return Row(
        package=asked.package, target=asked.target, engine=asked.answers[chosen[0]].engine,
        metric=f"{name} {language}" if language else name, texts=len(set(clusters)),
        score=bootstrap(scored, clusters), delta=delta, agreement=agreement, identical=identical, cut_off=cut_off,
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    lines = [HEAD, ("---",) * len(HEAD), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.package, row.target, row.metric, str(row.texts), f"{row.score.mean:.1f}", _difference(row.delta),
        "–" if row.agreement is None else f"{row.agreement:.1f}", _share(row.identical), _share(row.cut_off),
    )  # fmt: skip


def _difference(delta: Interval | None) -> str:
    if delta is None:
        return "–"
    if delta.low is None or delta.high is None:
        return f"{_signed(delta.mean)} [one text]"
    return f"{_signed(delta.mean)} [{_signed(delta.low)}, {_signed(delta.high)}]"


def _signed(value: float) -> str:
    """With a real minus sign, and no sign at a zero."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
