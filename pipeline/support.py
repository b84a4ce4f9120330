"""Which families are proven, and how closely: ``support.json``, written by ``scripts/support`` from the contract tests.

The models behind the figures are tiny and random: they prove the conversion of an architecture with its peculiarities
switched on, not the quality of any checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from .contracts import ModelKind

TARGETS = ("executorch", "coreml", "litert")
RECIPES = ("float16", "int8")


@dataclass(frozen=True, kw_only=True)
class Supported:
    """One architecture.

    Attributes:
        quirk: what was switched on when it was proven.
        generic: it has no file of its own.
        kl_nats: the larger of decode's and prefill's mean KL from eager PyTorch, by ``TARGET RECIPE``; of an encoder:
            that of its labels; of an encoder-decoder: of an answer to a source, and to a padded one.
        kind: decoder, encoder or encoder-decoder.
        cosine_distance: of an encoder, 1 − the mean cosine of its vectors with eager PyTorch's, by ``TARGET RECIPE``.
    """

    model_type: str
    quirk: str
    generic: bool
    kl_nats: Mapping[str, float]
    kind: ModelKind = "decoder"
    cosine_distance: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[tuple[str, Mapping[str, float]], ...]:
        """Name and figures of each line that the table has for it."""
        if self.kind != "encoder":
            return ((self.model_type, self.kl_nats),)
        return ((f"{self.model_type}, vectors", self.cosine_distance), (f"{self.model_type}, labels", self.kl_nats))


def supported() -> tuple[Supported, ...]:
    """Every proven architecture, in the order of the tests."""
    data = json.loads((files(__package__) / "support.json").read_text(encoding="utf-8"))
    return tuple(Supported(model_type=name, **facts) for name, facts in data.items())


CASES = tuple(f"{target} {recipe}" for target in TARGETS for recipe in RECIPES)


def of_kind(kind: ModelKind) -> list[Supported]:
    """The proven architectures of one kind."""
    return [entry for entry in supported() if entry.kind == kind]


def quirk_of(entry: Supported) -> str:
    """What an architecture was proven with, for people."""
    return entry.quirk + (" (no file of its own)" if entry.generic else "")


def markdown(kind: ModelKind) -> str:
    """A table of ``docs/support.md``."""
    lines = [
        "| `model_type` | proven with | " + " | ".join(CASES) + " |",
        "|---|---|" + "---|" * len(CASES),
    ]
    for entry in of_kind(kind):
        for name, figures in entry.rows:
            shown = " | ".join(f"{figures[case]:.1e}" if case in figures else "–" for case in CASES)
            lines.append(f"| {name} | {quirk_of(entry)} | {shown} |")
    return "\n".join(lines)
