"""The demands on an encoder. A distance is 1 − cosine of vectors, or the KL divergence of labels in nats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..contracts import Activations, Recipe
from ..errors import UsageError
from ..heads import Head


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Largest mean distance; largest error of one number, in parts of the answer's largest; smallest agreement."""

    distance: float
    error: float
    agreement: float


def fidelity_gate(activations: Activations, noise: Mapping[str, Any]) -> Gate:
    """Artifact against the quantized reference.

    As for decoders (docs/adr/0004), where activations are rounded to int8 the gate follows `noise`: how far the
    reference is from itself when last bits differ. Agreement is that of labels.
    """
    if activations == "int8-dynamic":
        return Gate(
            distance=max(1e-3, 1.25 * noise["distance"]),
            error=max(0.1, 1.5 * noise["largest_error"]),
            agreement=min(0.95, noise["agreement"] - 0.05),
        )
    return Gate(distance=1e-4, error=0.02, agreement=0.95)


ADDED_NOISE = 1.25
ADDED_NOISE_DISTANCE = 2e-4
"""An artifact that rounds activations may be this much farther from the float reference than the model of it is."""
PADDING_ERROR = {"float32": 1e-3, "float16": 0.02, "int8-dynamic": 0.1}
"""Of one number, when masked padding stands behind the text: sums in another order, and what rounding makes of them."""


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """Quantized reference against the original.

    Attributes:
        distance: largest mean 1 − cosine of vectors.
        kl_nats: largest mean divergence of labels.
        agreement: smallest share of texts whose labels are the same.
        lost: how many more questions than with the original may miss their passage.
        correlation: smallest correlation of the similarities of questions and passages.
    """

    distance: float
    kl_nats: float
    agreement: float
    lost: int
    correlation: float


QUALITY_GATES = {
    "float16": QualityGate(distance=1e-4, kl_nats=1e-3, agreement=0.98, lost=0, correlation=0.999),
    "int8": QualityGate(distance=3e-3, kl_nats=0.03, agreement=0.92, lost=0, correlation=0.998),
    "int4": QualityGate(distance=0.03, kl_nats=0.12, agreement=0.85, lost=1, correlation=0.985),
    "int4-small": QualityGate(distance=0.035, kl_nats=0.15, agreement=0.85, lost=1, correlation=0.985),
    "int4-nearest": QualityGate(distance=0.08, kl_nats=0.35, agreement=0.75, lost=2, correlation=0.97),
}


def quality_gate(recipe: Recipe) -> QualityGate:
    """The gate of a recipe. Raises UsageError for one without: encoders are not mixed of 4 and 8 bits."""
    if recipe.name not in QUALITY_GATES:
        raise UsageError(
            f"recipe {recipe.name!r} has no quality gate for encoders.", f"Recipes: {', '.join(QUALITY_GATES)}."
        )
    return QUALITY_GATES[recipe.name]


def distance_words(distance: float, head: Head) -> str:
    """A distance for people: the cosine it stands for, or nats."""
    return f"cosine {1.0 - distance:.6f}" if head.task == "embed" else f"{distance:.2e} nats"


def distance_demand(distance: float, head: Head) -> str:
    """A largest distance for people."""
    return f"≥ {1.0 - distance:.6g}" if head.task == "embed" else f"≤ {distance:.2g}"
