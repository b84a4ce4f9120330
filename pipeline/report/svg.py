"""Drawing: SVG elements with everything escaped, and the two shapes all plots are made of.

Plots are as wide as the page: x is in percent, y and text in pixels, so that words stay readable on a phone. Point
series lie in a nested ``<svg>`` that stretches; strokes do not. Colours are CSS classes, so that dark mode and print
need no second drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from . import words

BAR_HEIGHT = 14
ROW_HEIGHT = 40
PLOT_HEIGHT = 236
TOP, BOTTOM = 16, 26


@dataclass(frozen=True)
class Bar:
    """One bar: a share 0…1 of the full width; `mark` is a line at another share, such as a limit."""

    label: str
    value: str
    share: float
    style: str
    hatched: bool = False
    mark: float | None = None


@dataclass(frozen=True)
class Series:
    """Values by index, drawn as dots (and as a line when `line`)."""

    values: Sequence[float]
    style: str
    line: bool = False


@dataclass(frozen=True)
class Cloud:
    """Points (x, value), drawn as dots (and as a line when `line`); `label` stands at the first."""

    points: Sequence[tuple[float, float]]
    style: str
    line: bool = False
    label: str = ""


@dataclass(frozen=True)
class Axes:
    """Decades from 10**low to 10**high upwards; words at the left and right end of the x axis."""

    low: int
    high: int
    left: str
    right: str


@dataclass(frozen=True)
class Level:
    """A horizontal line across a plot, with words on it (under it when `below`)."""

    value: float
    label: str
    style: str
    below: bool = False


def element(name: str, attributes: Mapping[str, str | float], *children: str) -> Markup:
    """One SVG element; attribute values and plain strings are escaped, Markup is not escaped again."""
    head = "".join(f' {key}="{escape(_number(value))}"' for key, value in attributes.items())
    return Markup(f"<{name}{head}>") + Markup("").join(children) + Markup(f"</{name}>")


def drawing(key: str, title: str, description: str, height: float, *children: str) -> Markup:
    """A whole picture with a title and a description for those who cannot see it."""
    return element(
        "svg",
        {
            "class": "plot", "width": "100%", "height": height, "role": "img",
            "aria-labelledby": f"{key}-title {key}-desc",
        },
        element("title", {"id": f"{key}-title"}, title),
        element("desc", {"id": f"{key}-desc"}, description),
        *children,
    )  # fmt: skip


def bar_chart(key: str, title: str, bars: Sequence[Bar]) -> Markup:
    """Bars below each other: words above each bar, its value at the right. The description tells every value."""
    description = "; ".join(f"{bar.label}: {bar.value}" for bar in bars)
    rows = [_bar(key, bar, number * ROW_HEIGHT) for number, bar in enumerate(bars)]
    return drawing(key, title, description, len(bars) * ROW_HEIGHT, _hatch(key), *rows)


def _bar(key: str, bar: Bar, y: float) -> Markup:
    width = f"{100 * min(max(bar.share, 0.0), 1.0):.2f}%"
    place: dict[str, str | float] = {"x": 0, "y": y + 20, "height": BAR_HEIGHT, "rx": 3}
    parts = [
        element("text", {"x": 0, "y": y + 13, "class": "label"}, bar.label),
        element("text", {"x": "100%", "y": y + 13, "class": "value", "text-anchor": "end"}, bar.value),
        element("rect", place | {"width": "100%", "class": "track"}),
        element("rect", place | {"width": width, "class": f"fill {bar.style}"}),
    ]
    if bar.hatched:
        parts.append(element("rect", place | {"width": width, "fill": f"url(#{key}-hatch)"}))
    if bar.mark is not None and 0 < bar.mark <= 1:
        x = f"{100 * bar.mark:.2f}%"
        parts.append(element("line", {"x1": x, "x2": x, "y1": y + 17, "y2": y + 37, "class": "mark"}))
    return element("g", {}, *parts)


def stack_chart(key: str, title: str, segments: Sequence[tuple[str, str, float, str]]) -> Markup:
    """One bar in pieces: (label, value, share of the width, style) each; pieces wide enough carry their label."""
    parts, start = [], 0.0
    for label, value, share, style in segments:
        box: dict[str, str | float] = {"x": f"{100 * start:.3f}%", "width": f"{100 * share:.3f}%"}
        inside = [element("rect", {"width": "100%", "height": 44, "class": f"fill {style}"})]
        if start > 0:
            inside.append(element("rect", {"width": 2, "height": 44, "class": "gap"}))
        if share > 0.15:
            shown = f"on {style}" if share > 0.3 else f"on narrow {style}"  # narrow ones lose their words on a phone
            inside.append(element("text", {"x": 10, "y": 19, "class": shown}, label))
            inside.append(element("text", {"x": 10, "y": 35, "class": shown}, value))
        inside.append(element("title", {}, f"{label}: {value}"))
        parts.append(element("svg", box | {"height": 44}, *inside))
        start += share
    description = "; ".join(f"{label}: {value}" for label, value, _, _ in segments)
    return drawing(key, title, description, 44, *parts)


def log_plot(
    key: str, title: str, description: str, series: Sequence[Series], levels: Sequence[Level], axes: Axes
) -> Markup:
    """Values on a logarithmic axis by decades; zeros lie on the floor, figures that are not finite at the top."""
    inner = PLOT_HEIGHT - TOP - BOTTOM

    def y(value: float) -> float:
        return TOP + inner * (1 - _place(value, axes))

    ticks = [(10.0**power, power) for power in _ticks(axes)]
    drawn = [level for level in levels if level.value > 0 and math.isfinite(level.value)]
    ends = [
        element("text", {"x": 0, "y": PLOT_HEIGHT - 6, "class": "axis"}, axes.left),
        element("text", {"x": "100%", "y": PLOT_HEIGHT - 6, "class": "axis", "text-anchor": "end"}, axes.right),
    ]
    layers = [
        *(element("line", {"x1": 0, "x2": "100%", "y1": y(at), "y2": y(at), "class": "grid"}) for at, _ in ticks),
        *(_points(one, y) for one in series),
        *(_level(level, y(level.value)) for level in drawn),
        *(_tick_label(y(at), power, axes) for at, power in ticks),
        *(_level_label(level, y(level.value)) for level in drawn),
    ]
    return drawing(key, title, description, PLOT_HEIGHT, *layers, *ends)


def scatter_plot(
    key: str, title: str, description: str, clouds: Sequence[Cloud], axes: Axes, ends: tuple[float, float]
) -> Markup:
    """Points with an x of their own between `ends`, their height on a logarithmic axis by decades."""
    inner = PLOT_HEIGHT - TOP - BOTTOM
    low, high = ends

    def spot(point: tuple[float, float]) -> tuple[float, float]:
        share = (point[0] - low) / (high - low) if high > low else 0.5
        return 1000 * min(max(share, 0.0), 1.0), TOP + inner * (1 - _place(point[1], axes))

    ticks = [(power, TOP + inner * (1 - _place(10.0**power, axes))) for power in _ticks(axes)]
    labels = [(*spot(cloud.points[0]), cloud.label) for cloud in clouds if cloud.label]
    return drawing(
        key, title, description, PLOT_HEIGHT,
        *(element("line", {"x1": 0, "x2": "100%", "y1": y, "y2": y, "class": "grid"}) for _, y in ticks),
        *(_spots([spot(point) for point in cloud.points], cloud.style, 1000, line=cloud.line) for cloud in clouds),
        *(_tick_label(y, power, axes) for power, y in ticks),
        *(_spot_label(x, y, label) for x, y, label in labels),
        element("text", {"x": 0, "y": PLOT_HEIGHT - 6, "class": "axis"}, axes.left),
        element("text", {"x": "100%", "y": PLOT_HEIGHT - 6, "class": "axis", "text-anchor": "end"}, axes.right),
    )  # fmt: skip


def _spot_label(x: float, y: float, label: str) -> Markup:
    """Words above a point of a picture 1000 wide, turned inwards near its edges."""
    anchor = "start" if x < 250 else "end" if x > 750 else "middle"
    return element("text", {"x": f"{x / 10:.2f}%", "y": y - 7, "class": "axis halo", "text-anchor": anchor}, label)


def decades(values: Sequence[float]) -> tuple[int, int]:
    """Exponents of the axis' ends: whole decades around the finite positive values, 2 to 12 of them."""
    positive = [value for value in values if math.isfinite(value) and value > 0]
    if not positive:
        return -9, 0
    high = math.ceil(math.log10(max(positive)) + 1e-9)
    low = math.floor(math.log10(min(positive)) - 1e-9)
    return max(min(low, high - 2), high - 12), high


def _place(value: float, axes: Axes) -> float:
    """0…1 up the axis."""
    if not math.isfinite(value):
        return 1.0
    if value <= 0:
        return 0.0
    return min(max((math.log10(value) - axes.low) / (axes.high - axes.low), 0.0), 1.0)


def _ticks(axes: Axes) -> range:
    return range(axes.low, axes.high + 1, 1 if axes.high - axes.low <= 5 else 2)


def _tick_label(y: float, power: int, axes: Axes) -> Markup:
    text = words.power_of_ten(power) + (" and less" if power == axes.low else "")
    return element("text", {"x": 0, "y": y - 3, "class": "axis halo"}, text)


def _level(level: Level, y: float) -> Markup:
    return element("line", {"x1": 0, "x2": "100%", "y1": y, "y2": y, "class": f"level {level.style}"})


def _level_label(level: Level, y: float) -> Markup:
    place: dict[str, str | float] = {"x": "100%", "y": y + 14 if level.below else max(y - 4, 10), "text-anchor": "end"}
    return element("text", place | {"class": f"axis halo {level.style}"}, level.label)


def _points(series: Series, y: Callable[[float], float]) -> Markup:
    """A nested picture one unit wide per value; a dot is a line of no length with round ends."""
    count = max(len(series.values), 1)
    spots = [(index + 0.5, y(value)) for index, value in enumerate(series.values)]
    return _spots(spots, series.style, count, line=series.line)


def _spots(spots: Sequence[tuple[float, float]], style: str, width: int, *, line: bool) -> Markup:
    """Dots, and a line through them when `line`, in a nested picture `width` units wide that stretches."""
    dots = "".join(f"M{x:g} {_short(at)}h0" for x, at in spots)
    paths = [element("path", {"d": dots, "class": f"dots {style}"})]
    if line and len(spots) > 1:
        through = "M" + "L".join(f"{x:g} {_short(at)}" for x, at in spots)
        paths.insert(0, element("path", {"d": through, "class": f"line {style}"}))
    box: dict[str, str | float] = {
        "width": "100%", "height": PLOT_HEIGHT, "viewBox": f"0 0 {width} {PLOT_HEIGHT}", "preserveAspectRatio": "none",
    }  # fmt: skip
    return element("svg", box, *paths)


def _hatch(key: str) -> Markup:
    return element(
        "pattern",
        {
            "id": f"{key}-hatch",
            "width": 6,
            "height": 6,
            "patternUnits": "userSpaceOnUse",
            "patternTransform": "rotate(45)",
        },
        element("rect", {"width": 3, "height": 6, "class": "hatch"}),
    )


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
