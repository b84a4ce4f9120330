"""The size-quality curve: what mixtures of 4 and 8 bits were to choose from, and which one was built."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import words
from .facts import targets_of
from .plots import Figure, style_of
from .svg import Axes, Cloud, decades, scatter_plot

CURVE_STYLE, RIVAL_STYLE = "quiet", "c6"


def pareto_plot(data: Mapping[str, Any]) -> Figure | None:
    """KL over stored bytes of every mixture that was measured, with what was built; None without a measured curve."""
    curve = data.get("curve") or []
    if not curve:
        return None
    targets = targets_of(data)
    rounds = any(target.report["activations"] == "int8-dynamic" for target in targets)
    key = "loss_nats" if rounds else "weights_loss_nats"
    line = [(float(point["weights_bytes"]), float(point[key])) for point in curve]
    size = float(sum(data["weights_bytes_by_part"].values()))
    built = [
        (number, target.title, (size, float(kl)))
        for number, target in enumerate(targets)
        if isinstance(kl := target.figure("quality", "kl_nats"), float) and math.isfinite(kl)
    ]
    rivals = rivals_of(str(data["source"]["name"]))
    points = [*line, *(point for _, _, point in built), *rivals.values()]
    ends = min(x for x, _ in points), max(x for x, _ in points)
    smallest, largest = (words.human_bytes(int(end)) for end in ends)
    clouds = [
        Cloud(line, f"{CURVE_STYLE} big", line=True),
        *(Cloud([point], f"{style_of(number)} big") for number, _, point in built),
        *(Cloud([point], f"{RIVAL_STYLE} big", label=tool) for tool, point in rivals.items()),
    ]
    measured = "; ".join(f"{title}: {words.small(kl)} nats" for _, title, (_, kl) in built)
    drawing = scatter_plot(
        "pareto", "Loss over size of the mixtures of 4 and 8 bits",
        f"{len(line)} mixtures from {words.human_bytes(int(line[0][0]))} and {words.small(line[0][1])} nats to "
        f"{words.human_bytes(int(line[-1][0]))} and {words.small(line[-1][1])} nats. Built, {measured}.",
        clouds, Axes(*decades([kl for _, kl in points]), smallest, largest), ends,
    )  # fmt: skip
    how = "with activations rounded to int8" if rounds else "with floating-point activations"
    sentence = (
        f"Each grey dot is a mixture of 4 and 8 bits that could have been built: its stored weights, and the KL "
        f"divergence from the original to expect of it, {how}, from measuring each part of the model alone. Coloured: "
        "what was built, measured on the proof text, which is another text."
    )
    shown = [(CURVE_STYLE, "mixtures, estimated")]
    shown += [(style_of(number), f"{title}, measured") for number, title, _ in built]
    if rivals:
        shown.append((RIVAL_STYLE, "whole files of other tools, measured on the proof text"))
    return Figure("Size against quality", drawing, sentence, tuple(shown))


def rivals_of(model: str) -> dict[str, tuple[float, float]]:
    """(bytes, KL) of other tools' files of this model, by tool, where they are known."""
    known = tomllib.loads((Path(__file__).parent / "rivals.toml").read_text(encoding="utf-8"))
    return {one["tool"]: (float(one["file_bytes"]), float(one["kl_nats"])) for one in known.get(model, [])}
