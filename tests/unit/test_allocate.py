"""Mixtures of 4 and 8 bits: the greedy order, the goals, and what is said when none can be met."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kobako.pipeline.allocate import allocate, mixtures
from kobako.pipeline.build import check_size
from kobako.pipeline.contracts import RECIPES, Exported
from kobako.pipeline.errors import UnsupportedRecipe, UsageError
from kobako.pipeline.mixture import Curve, Goal, Part
from kobako.pipeline.validate.gates import quality_gate

BASE = RECIPES["int4-small"]


def part(name: str, loss: float, narrow: int = 1000) -> Part:
    return Part(name=name, parameters=(f"{name}.weight",), loss_nats=loss, narrow_bytes=narrow, wide_bytes=2 * narrow)


CURVE = Curve(
    parts=(part("a", 0.01), part("b", 0.04), part("c", 0.03, narrow=3000)),
    narrow_loss_nats=0.1, wide_loss_nats=0.004, activations_nats=0.02,
)  # fmt: skip


def test_the_part_that_wins_most_per_byte_is_widened_first() -> None:
    names = [mixture.wide for mixture in mixtures(CURVE)]
    assert names[:2] == [(), ("b",)]
    assert len(names[-1]) == 3


def test_the_ends_of_the_curve_are_what_was_measured() -> None:
    points = mixtures(CURVE)
    assert points[0].weights_loss_nats == pytest.approx(0.1)
    assert points[-1].weights_loss_nats == pytest.approx(0.004)
    assert points[-1].loss_nats == pytest.approx(0.024)
    assert (points[0].weights_bytes, points[-1].weights_bytes) == (5000, 10000)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 10**6)), min_size=1, max_size=12))
def test_larger_mixtures_never_lose_more(parts: list[tuple[float, int]]) -> None:
    made = tuple(part(str(i), loss, size) for i, (loss, size) in enumerate(parts))
    points = mixtures(Curve(parts=made, narrow_loss_nats=1.0, wide_loss_nats=0.01, activations_nats=0.0))
    for one, other in itertools.pairwise(points):
        assert other.weights_bytes > one.weights_bytes
        assert other.weights_loss_nats <= one.weights_loss_nats + 1e-9


def test_a_size_gives_the_best_that_fits() -> None:
    recipe = allocate(CURVE, Goal(size_bytes=6500), BASE, rounds_activations=True)
    assert recipe.wide == ("b.weight",)
    assert recipe.name == "mixed-0.0065mb"
    beside = allocate(CURVE, Goal(size_bytes=6500), BASE, rounds_activations=True, beside_bytes=1000)
    assert beside.wide == ()


def test_a_loss_gives_the_smallest_that_is_good_enough_and_becomes_the_gate() -> None:
    recipe = allocate(CURVE, Goal(loss_nats=0.065), BASE, rounds_activations=False)
    assert recipe.wide == ("b.weight",)
    assert quality_gate(recipe).kl_nats == 0.065
    # int8 activations cost 0.02 of it
    stricter = allocate(CURVE, Goal(loss_nats=0.065), BASE, rounds_activations=True)
    assert len(stricter.wide) == 2


def test_a_goal_that_nothing_meets_is_told_what_is_possible() -> None:
    with pytest.raises(UnsupportedRecipe) as caught:
        allocate(CURVE, Goal(size_bytes=4000), BASE, rounds_activations=True)
    assert "the smallest has 0.0 MB and loses about 0.120 nats" in str(caught.value)
    with pytest.raises(UnsupportedRecipe, match=r"0\.001 nats"):
        allocate(CURVE, Goal(loss_nats=0.001), BASE, rounds_activations=False)


def test_only_for_a_size_is_a_smaller_slice_the_next_step() -> None:
    def next_step(goal: Goal, *, nested: bool) -> str:
        with pytest.raises(UnsupportedRecipe) as caught:
            allocate(CURVE, goal, BASE, rounds_activations=False, nested=nested)
        return caught.value.next_step

    assert "a smaller --slice" in next_step(Goal(size_bytes=4000), nested=True)
    assert "--slice" not in next_step(Goal(size_bytes=4000), nested=False)
    assert "--slice" not in next_step(Goal(loss_nats=0.001), nested=True)
    assert "--slice" not in next_step(Goal(size_bytes=6000, loss_nats=0.001), nested=True)


def test_a_recipe_and_a_goal_exclude_each_other() -> None:
    from kobako.pipeline.cli.options import chosen_goal, chosen_recipe

    goal = chosen_goal("80MB", None)
    assert goal == Goal(size_bytes=80_000_000)
    assert chosen_recipe(None, goal).name == "int4-small"
    with pytest.raises(UsageError):
        chosen_recipe("int8", goal)
    assert chosen_goal(None, None) is None


def test_a_part_that_does_not_fit_is_passed_over_for_one_that_does() -> None:
    recipe = allocate(CURVE, Goal(size_bytes=5000 + 1000), BASE, rounds_activations=True)
    assert recipe.wide == ("b.weight",)
    big_first = Curve(
        parts=(part("table", 1.0, narrow=3000), part("small", 0.01)),
        narrow_loss_nats=1.0, wide_loss_nats=0.0, activations_nats=0.0,
    )  # fmt: skip
    assert allocate(big_first, Goal(size_bytes=5500), BASE, rounds_activations=True).wide == ("small.weight",)


def test_a_mixture_of_nothing_wide_has_a_gate_too() -> None:
    recipe = allocate(CURVE, Goal(size_bytes=5000), BASE, rounds_activations=True)
    assert recipe.wide == ()
    assert quality_gate(recipe) == quality_gate(BASE)


def test_a_size_that_is_not_kept_after_all_is_an_error(tmp_path: Path) -> None:
    """What an artifact holds besides weights is an estimate; the promise is about the file."""
    for name, size in {"model.mlpackage/a": 600, "model.mlpackage/b": 500, "tokenizer.json": 900}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    files = ("model.mlpackage/a", "model.mlpackage/b", "tokenizer.json")
    made = Exported(target="coreml", directory=tmp_path, files=files, activations="float16", context_tokens=64)
    with pytest.raises(UnsupportedRecipe, match=r"coreml's model\.mlpackage takes"):
        check_size(made, Goal(size_bytes=1099))
    for goal in (Goal(size_bytes=1100), Goal(loss_nats=0.1), None):
        check_size(made, goal)
