"""The grid every target must hold exactly."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kobako.pipeline.weights import (
    QuantizedTensor,
    QuantizedWeights,
    representable_scales,
    round_to_nearest,
    write_weights,
)


@given(st.lists(st.floats(min_value=0, max_value=60000, width=32), min_size=1, max_size=20))
def test_scales_survive_bfloat16_and_float16(values: list[float]) -> None:
    scales = representable_scales(np.array(values, dtype=np.float32))
    assert (scales.astype(np.float16).astype(np.float32) == scales).all()
    assert (scales.astype(ml_dtypes.bfloat16).astype(np.float32) == scales).all()
    assert (scales > 0).all()


def test_scales_stay_close_to_what_was_asked() -> None:
    asked = np.geomspace(1e-5, 100, 1000).astype(np.float32)
    assert np.abs(representable_scales(asked) / asked - 1).max() <= 2**-8


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e6])
def test_a_scale_that_no_runtime_holds_is_refused(bad: float) -> None:
    with pytest.raises(OverflowError):
        representable_scales(np.array([1.0, bad], dtype=np.float32))


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 32)])
def test_rounding_error_is_at_most_half_a_step(bits: int, group: int | None) -> None:
    weight = np.random.default_rng(0).normal(size=(24, 96)).astype(np.float32)
    tensor = round_to_nearest(weight, bits, group)
    steps = np.repeat(tensor.scales, tensor.group_size, axis=1)
    # a scale rounded down by 2**-9 may clip the group's maximum by as much
    assert (np.abs(tensor.dequantize() - weight) <= steps * 0.51 + np.abs(weight) * 2**-8).all()
    assert tensor.codes.max() <= 2 ** (bits - 1) - 1
    assert tensor.codes.min() >= -(2 ** (bits - 1) - 1)


def test_rounding_what_lies_on_the_grid_changes_nothing() -> None:
    weight = np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)
    once = round_to_nearest(weight, 4, 32)
    again = round_to_nearest(once.dequantize(), 4, 32)
    assert (again.codes == once.codes).all()
    assert (again.scales == once.scales).all()


def test_file_round_trip(tmp_path: Path) -> None:
    weight = np.random.default_rng(2).normal(size=(8, 64)).astype(np.float32)
    tensors = {"a.weight": round_to_nearest(weight, 4, 32), "norm": np.ones(8, np.float32)}
    write_weights(tmp_path / "w.safetensors", tensors.items())
    read = QuantizedWeights(tmp_path / "w.safetensors")
    assert set(read) == {"a.weight", "norm"}
    tensor = read["a.weight"]
    assert isinstance(tensor, QuantizedTensor)
    assert tensor.bits == 4
    assert tensor.group_size == 32
    assert (tensor.dequantize() == read.dequantized("a.weight")).all()
    assert isinstance(read["norm"], np.ndarray)
