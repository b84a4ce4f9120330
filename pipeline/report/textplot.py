"""The plot of an encoder's proof: how far its answer to each text is from the quantized model's."""

from __future__ import annotations

from collections.abc import Sequence

from . import words
from .facts import TargetFacts
from .plots import Figure, style_of
from .svg import Axes, Series, decades, log_plot


def texts_decades(targets: Sequence[TargetFacts]) -> tuple[int, int]:
    """One axis for the plots of all targets, so that they can be compared."""
    values: list[float] = []
    for target in targets:
        values += target.figure("fidelity", "texts", "distances") or []
        values += target.figure("quality", "quality_distances") or []
    return decades(values)


def texts_plot(target: TargetFacts, number: int, ends: tuple[int, int]) -> Figure | None:
    """Distance of each text: the file's from the quantized model, over the recipe's own."""
    mine = target.figure("fidelity", "texts", "distances")
    if not mine:
        return None
    recipe = target.figure("quality", "quality_distances") or []
    mean = target.figure("fidelity", "texts", "distance")
    sentence = (
        f"Each dot is one of {len(mine)} texts (questions, passages, then longer ones): how far {target.title}'s "
        "answer is from the quantized model's (colour), and the quantized model's from the original (grey), as 1 − "
        "cosine of vectors or divergence of labels in nats; lower is closer."
    )
    drawing = log_plot(
        f"texts-{number}",
        f"Distance per text, {target.title}",
        f"{len(mine)} texts, {words.small(mean)} on average.",
        [Series(recipe, "quiet"), Series(mine, style_of(number))],
        [],
        Axes(*ends, "first text", f"text {len(mine)}"),
    )
    legend = (
        (style_of(number), "file against quantized model (fidelity)"),
        ("quiet", "quantized model against original (quality)"),
    )
    return Figure("Distance of every text's answer", drawing, sentence, legend)
