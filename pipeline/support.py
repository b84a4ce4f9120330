"""Which families are proven, and how closely: ``support.json``, written by ``scripts/support`` from the contract tests.

The models behind the figures are tiny and random: they prove the conversion of an architecture with its peculiarities
switched on, not the quality of any checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

TARGETS = ("executorch", "coreml", "litert")
RECIPES = ("float16", "int8")


@dataclass(frozen=True, kw_only=True)
class Supported:
    """One architecture.

    Attributes:
        quirk: what was switched on when it was proven.
        generic: it has no file of its own.
        kl_nats: the larger of decode's and prefill's mean KL from eager PyTorch, by ``TARGET RECIPE``.
    """

    model_type: str
    quirk: str
    generic: bool
    kl_nats: Mapping[str, float]


def supported() -> tuple[Supported, ...]:
    """Every proven architecture, in the order of the tests."""
    data = json.loads((files(__package__) / "support.json").read_text(encoding="utf-8"))
    return tuple(Supported(model_type=name, **facts) for name, facts in data.items())


def markdown() -> str:
    """The table of ``docs/support.md``."""
    cases = [f"{target} {recipe}" for target in TARGETS for recipe in RECIPES]
    lines = [
        "| `model_type` | proven with | " + " | ".join(cases) + " |",
        "|---|---|" + "---|" * len(cases),
    ]
    for entry in supported():
        quirk = entry.quirk + (" (no file of its own)" if entry.generic else "")
        figures = " | ".join(f"{entry.kl_nats[case]:.1e}" if case in entry.kl_nats else "–" for case in cases)
        lines.append(f"| {entry.model_type} | {quirk} | {figures} |")
    return "\n".join(lines)
