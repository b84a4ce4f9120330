"""Several runs of a MIL function operation by operation: the same as one after the other, or one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.targets.coreml.mil.program import Function, Literal, Operation, Program, TensorType

pytestmark = pytest.mark.heavy

SLOTS, WIDTH = 6, 4
STATE, ROW = TensorType("float16", (SLOTS, WIDTH)), TensorType("float16", (1, WIDTH))
MASK, END = TensorType("float16", (1, SLOTS)), TensorType("int32", (2,))
RUNS = [(np.full((1, WIDTH), 2.0**place, np.float32), place) for place in range(4)]


def op(kind: str, made: str, shape: TensorType | None, **inputs: Any) -> Operation:
    """An operation with an output called `made`, or none."""
    given = {key: one if isinstance(one, tuple) else (one,) for key, one in inputs.items()}
    return Operation(kind, made, given, {}, ((made, shape),) if shape else ())


def constant(*values: int) -> Literal:
    return Literal(TensorType("int32", (len(values),)), np.array(values, np.int32))


def function(*operations: Operation, output: str = "seen") -> Function:
    inputs = {"row": ROW, "begin": END, "end": END, "mask": MASK}
    return Function("main", inputs, {"kept": STATE}, (output,), operations)


def update(begin: Any = "begin", end: Any = "end") -> Operation:
    return op("slice_update", "changed", STATE, x="before", update="row", begin=begin, end=end)


READ, WRITE = (
    op("read_state", "before", STATE, input="kept"),
    op("write_state", "w", None, input="kept", data="changed"),
)
READ_AGAIN, LOOK = op("read_state", "after", STATE, input="kept"), op("matmul", "seen", ROW, x="mask", y="after")
CAUSAL = function(READ, update(), WRITE, READ_AGAIN, LOOK)


def interpreter(body: Function) -> Any:
    from kobako.targets.coreml.mil.interpreter import Interpreter

    return Interpreter(Program(Path("made.mlpackage"), {"main": body}, "main", {}, 9, None))


def inputs(row: np.ndarray, place: int) -> dict[str, np.ndarray]:
    """Write `row` at `place` and look at all places up to it."""
    mask = (np.arange(SLOTS) <= place).astype(np.float32)[None]
    return {"row": row, "begin": np.array([place, 0]), "end": np.array([place + 1, WIDTH]), "mask": mask}


def outcomes(body: Function, output: str = "seen") -> tuple[Any, Any, bool]:
    """What four runs give together, what they give one after the other, and whether they went together."""
    given = [inputs(*one) for one in RUNS]
    together, alone = interpreter(body), interpreter(body)
    found = [one[output] for one in together.run_each("main", given)]
    wanted = [alone.run("main", one)[output] for one in given]
    np.testing.assert_array_equal(together.state("kept"), alone.state("kept"))
    return np.stack(found), np.stack(wanted), together._compiled["main"].abreast


def test_runs_that_look_back_only_go_together() -> None:
    found, wanted, together = outcomes(CAUSAL)
    assert together
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found[:, 0, 0], [1, 3, 7, 15])


def test_a_state_that_is_written_at_one_place_always_goes_run_by_run() -> None:
    found, wanted, together = outcomes(
        function(READ, update(constant(0, 0), constant(1, WIDTH)), WRITE, READ_AGAIN, LOOK)
    )
    assert not together
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found[:, 0, 0], [1, 2, 4, 8])


def test_a_state_that_is_copied_goes_run_by_run() -> None:
    copy = op("identity", "copied", STATE, x="before")
    changed = op("slice_update", "changed", STATE, x="copied", update="row", begin="begin", end="end")
    found, wanted, together = outcomes(function(READ, copy, changed, WRITE, READ_AGAIN, LOOK))
    assert not together
    np.testing.assert_array_equal(found, wanted)


def test_a_state_that_is_never_written_stays_what_it_was() -> None:
    found, _, _ = outcomes(function(READ, update(), READ_AGAIN, LOOK))
    assert not found.any()


def test_a_state_that_is_read_before_it_is_written_shows_what_it_was() -> None:
    early = op("read_state", "after", STATE, input="kept")
    found, wanted, together = outcomes(function(READ, early, update(), WRITE, LOOK))
    assert not together
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found[:, 0, 0], [0, 1, 3, 7])


def test_an_output_may_be_what_was_written() -> None:
    found, wanted, _ = outcomes(function(READ, update(), WRITE, output="changed"), "changed")
    np.testing.assert_array_equal(found[-1], wanted[-1])
    assert found[-1].sum() == WIDTH * 15


def test_a_matrix_that_is_computed_is_each_runs_own() -> None:
    product = op("linear", "seen", TensorType("float16", (1, 1)), x="row", weight="row")
    found, wanted, together = outcomes(function(READ, update(), WRITE, product))
    assert together
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found[:, 0, 0], [4, 16, 64, 256])


def test_the_first_operation_that_overflows_is_named_in_a_later_run() -> None:
    from kobako.pipeline.errors import BadArtifact

    squared = op("mul", "square", ROW, x="row", y="row")
    small = op("exp", "seen", ROW, x="square")
    body = function(READ, update(), WRITE, squared, small)
    given = [inputs(np.full((1, WIDTH), value, np.float32), place) for place, value in enumerate((1.0, 2.0, 300.0))]
    with pytest.raises(BadArtifact, match=r"operation mul \(square → square\): its output is infinite"):
        interpreter(body).run_each("main", given)
