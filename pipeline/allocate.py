"""Which parts of a model get 8 bits: as few as a loss allows, or the best that a size allows. Pure arithmetic.

Starting from 4 bits everywhere, the part whose widening wins most per byte is widened next. Where losses add up, this
greedy order is optimal but for the last parts (it is the linear relaxation of a knapsack); for a size, parts that no
longer fit are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .contracts import Recipe
from .errors import UnsupportedRecipe
from .mixture import Curve, Goal, Mixture, Part


def mixtures(curve: Curve) -> tuple[Mixture, ...]:
    """Every mixture of the greedy order, smallest first, with its bytes and the loss to expect."""
    order = _by_gain(curve)
    return tuple(_mixture(curve, order[:count]) for count in range(len(order) + 1))


def _by_gain(curve: Curve) -> list[Part]:
    return sorted(curve.parts, key=lambda part: -part.loss_nats / max(part.wide_bytes - part.narrow_bytes, 1))


def _mixture(curve: Curve, wide: Sequence[Part]) -> Mixture:
    """The mixture with these parts in 8 bits.

    The parts' losses are scaled so that all of them together give what was measured for all together.
    """
    names = {part.name for part in wide}
    alone = sum(part.loss_nats for part in curve.parts)
    left = sum(part.loss_nats for part in curve.parts if part.name not in names)
    share = left / alone if alone > 0 else 0.0
    loss = curve.wide_loss_nats + share * max(curve.narrow_loss_nats - curve.wide_loss_nats, 0.0)
    return Mixture(
        wide=tuple(part.name for part in wide),
        weights_bytes=sum(part.wide_bytes if part.name in names else part.narrow_bytes for part in curve.parts),
        weights_loss_nats=loss, loss_nats=loss + curve.activations_nats,
    )  # fmt: skip


def _filled(curve: Curve, weights_bytes: int) -> Mixture:
    """Parts in the greedy order, each widened if it still fits."""
    wide: list[Part] = []
    size = sum(part.narrow_bytes for part in curve.parts)
    for part in _by_gain(curve):
        if size + part.wide_bytes - part.narrow_bytes <= weights_bytes:
            size += part.wide_bytes - part.narrow_bytes
            wide.append(part)
    return _mixture(curve, wide)


def allocate(
    curve: Curve, goal: Goal, base: Recipe, *, rounds_activations: bool, beside_bytes: int = 0, nested: bool = False
) -> Recipe:
    """The recipe that meets `goal`: `base` with some parts kept in 8 bits.

    `beside_bytes`: what an artifact holds besides weights. `nested`: there are smaller models inside this one. Raises
    UnsupportedRecipe when no mixture does, telling the nearest one.
    """
    choices = mixtures(curve)

    def loss(mixture: Mixture) -> float:
        return mixture.loss_nats if rounds_activations else mixture.weights_loss_nats

    def size(mixture: Mixture) -> int:
        return mixture.weights_bytes + beside_bytes

    def meets(mixture: Mixture) -> bool:
        fits = goal.size_bytes is None or size(mixture) <= goal.size_bytes
        return fits and (goal.loss_nats is None or loss(mixture) <= goal.loss_nats)

    if goal.size_bytes is not None:
        choices = (*choices, _filled(curve, goal.size_bytes - beside_bytes))
    fitting = [mixture for mixture in choices if meets(mixture)]
    if not fitting:
        smallest, best = choices[0], min(choices, key=loss)
        too_large = goal.size_bytes is not None and size(smallest) > goal.size_bytes
        or_less = ", or a smaller --slice (docs/slices.md)" if nested and too_large else ""
        raise UnsupportedRecipe(
            f"no mixture of 4 and 8 bits meets {goal.words()}: the smallest has {size(smallest) / 1e6:.1f} MB and "
            f"loses about {loss(smallest):.3f} nats, the best {size(best) / 1e6:.1f} MB and {loss(best):.3f} nats.",
            f"Ask for a larger --size-budget or --max-kl, or take --recipe int8 or float16{or_less}.",
        )
    chosen = min(fitting, key=loss) if goal.loss_nats is None else min(fitting, key=size)
    by_name = {part.name: part.parameters for part in curve.parts}
    wide = tuple(sorted(name for part in chosen.wide for name in by_name[part]))
    return replace(base, name=goal.recipe_name(), wide=wide, loss_limit_nats=goal.loss_nats)
