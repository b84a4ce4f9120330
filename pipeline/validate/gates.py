"""The demands: what must hold before a package is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..contracts import Activations, KvCache, Recipe
from ..errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Largest mean KL divergence in nats, and smallest top-1 agreement (share of positions)."""

    kl_nats: float
    top1: float


def fidelity_gate(activations: Activations, noise: Mapping[str, float], kv_cache: KvCache = "float") -> Gate:
    """Artifact against the quantized reference.

    `noise` is how far the reference is from itself when last bits differ (`expect`). Where activations are
    rounded to int8, last-bit differences grow layer by layer, and no two programs agree better than that: the gate is
    0.02 nats, or 1.25 times the noise where that is more. A cache rounded to int8 amplifies them too, though less.
    """
    if activations == "int8-dynamic":
        return Gate(kl_nats=max(0.02, 1.25 * noise["kl_nats"]), top1=min(0.90, noise["top1"] - 0.05))
    if kv_cache == "int8":
        return Gate(kl_nats=max(1e-3, 1.25 * noise["kl_nats"]), top1=min(0.99, noise["top1"] - 0.01))
    return Gate(kl_nats=1e-3, top1=0.99)


def for_few_positions(gate: Gate, activations: Activations, positions: int) -> Gate:
    """The gate where only some positions are compared, as in prefill.

    With rounded activations both are a matter of chance at each position, and two standard deviations of their means
    are allowed; KL divergences of single positions spread at least as wide as their mean.
    Without, one position may be a near tie that the last bit decides, and is more than a hundredth of them.
    """
    if activations != "int8-dynamic":
        return Gate(kl_nats=gate.kl_nats, top1=min(gate.top1, 1.0 - 1.5 / positions))  # one, not two
    spread = 2.0 / math.sqrt(positions)
    return Gate(
        kl_nats=gate.kl_nats * (1.0 + spread),
        top1=gate.top1 - 2.0 * math.sqrt(max(0.0, gate.top1 * (1.0 - gate.top1)) / positions),
    )


ADDED_NOISE = 1.25
ADDED_NOISE_NATS = 2e-3
"""An artifact that rounds activations may be this much farther from the float reference than the model of it is."""


QUALITY_GATES = {
    "float16": Gate(kl_nats=1e-3, top1=0.99),
    "int8": Gate(kl_nats=0.06, top1=0.85),
    "int4": Gate(kl_nats=0.12, top1=0.80),
    "int4-small": Gate(kl_nats=0.15, top1=0.75),
    "int4-nearest": Gate(kl_nats=0.35, top1=0.65),
}


def quality_gate(recipe: Recipe) -> Gate:
    """Quantized reference against the original model; a mixture must be no worse than all in 4 bits.

    Raises UsageError for a recipe without a gate.
    """
    known = QUALITY_GATES.get(recipe.name) or (QUALITY_GATES["int4-small"] if recipe.asymmetric else None)
    if known is None:
        raise UsageError(f"recipe {recipe.name!r} has no quality gate.", f"Recipes: {', '.join(QUALITY_GATES)}.")
    return known if recipe.loss_limit_nats is None else Gate(kl_nats=recipe.loss_limit_nats, top1=known.top1)


GREEDY_PROMPTS_SHARE = 0.8
"""Share of prompts whose first greedy tokens must equal the reference's, or part from them at a near tie."""


def near_tie(noise: Mapping[str, float]) -> float:
    """The gap between the best two logits below which either may win.

    A quarter more than what last bits change in the reference at 99 of 100 positions, and no less than float16 can tell
    apart at logits of 16 to 32 (2**-6).
    """
    return max(1.25 * noise["margin"], 2.0**-6)


LAYER_DEPARTURE = {"float32": 0.02, "float16": 0.05, "int8-dynamic": 0.35}
"""Relative error of a layer's keys above which the layer is said to depart from the reference."""
