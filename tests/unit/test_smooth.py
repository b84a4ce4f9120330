"""Smoothing moves scales between weights and leaves the function as it was."""

from __future__ import annotations

import numpy as np
import pytest
from kobako.pipeline import families
from kobako.pipeline.contracts import FloatArray
from kobako.pipeline.smooth import Smoothed, scales_of, smooth

HIDDEN, WIDE = 8, 12


@pytest.fixture
def layer() -> dict[str, FloatArray]:
    random = np.random.default_rng(0)

    def matrix(outputs: int, inputs: int) -> FloatArray:
        return random.normal(size=(outputs, inputs)).astype(np.float32)

    home = "model.layers.0"
    return {
        f"{home}.input_layernorm.weight": random.uniform(0.5, 2, HIDDEN).astype(np.float32),
        f"{home}.post_attention_layernorm.weight": random.uniform(0.5, 2, HIDDEN).astype(np.float32),
        **{f"{home}.self_attn.{name}_proj.weight": matrix(HIDDEN, HIDDEN) for name in "qkv"},
        f"{home}.mlp.gate_proj.weight": matrix(WIDE, HIDDEN),
        f"{home}.mlp.up_proj.weight": matrix(WIDE, HIDDEN),
        f"{home}.mlp.down_proj.weight": matrix(HIDDEN, WIDE),
    }


def feed_forward(t: dict[str, FloatArray] | Smoothed, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The input of down_proj, and the block's output, for a normalized x ``[HIDDEN]``."""
    home = "model.layers.0"
    x = x * t[f"{home}.post_attention_layernorm.weight"]
    gate, up = t[f"{home}.mlp.gate_proj.weight"] @ x, t[f"{home}.mlp.up_proj.weight"] @ x
    inner = gate / (1 + np.exp(-gate)) * up
    return inner, t[f"{home}.mlp.down_proj.weight"] @ inner


def test_the_function_is_the_same_and_the_outlier_is_smaller(layer: dict[str, FloatArray]) -> None:
    home = "model.layers.0"
    layer[f"{home}.mlp.up_proj.weight"][3] *= 100  # an outlier channel of the down projection's input
    x = np.random.default_rng(1).normal(size=HIDDEN).astype(np.float32)
    before, expected = feed_forward(layer, x)
    largest = {f"{home}.{taker}": np.full(HIDDEN, 1.0, np.float32) for taker in ("self_attn.q_proj", "mlp.gate_proj")}
    largest[f"{home}.mlp.down_proj"] = np.abs(before)
    smoothed = smooth(layer, largest, families.get("llama"), 1, 0.5)
    after, actual = feed_forward(smoothed, x)
    assert np.allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(after).max() / np.median(np.abs(after)) < 0.5 * np.abs(before).max() / np.median(np.abs(before))
    assert set(smoothed) == set(layer)


def test_attention_inputs_are_the_same_after_the_norm(layer: dict[str, FloatArray]) -> None:
    home = "model.layers.0"
    largest = {name: np.geomspace(0.1, 30, HIDDEN).astype(np.float32) for name in (
        f"{home}.self_attn.q_proj", f"{home}.mlp.gate_proj")}  # fmt: skip
    largest[f"{home}.mlp.down_proj"] = np.ones(WIDE, np.float32)
    smoothed = smooth(layer, largest, families.get("llama"), 1, 0.5)
    norm, x = f"{home}.input_layernorm.weight", np.ones(HIDDEN, np.float32)
    assert not np.allclose(smoothed[norm], layer[norm])
    for name in "qkv":
        weight = f"{home}.self_attn.{name}_proj.weight"
        assert np.allclose(smoothed[weight] @ (x * smoothed[norm]), layer[weight] @ (x * layer[norm]), rtol=1e-4)


def test_scales_have_mean_one_and_survive_dead_channels() -> None:
    scales = scales_of(np.array([0, 1, 100], np.float32), np.array([1, 0, 1], np.float32), 0.5)
    assert np.isfinite(scales).all()
    assert np.exp(np.log(scales).mean()) == pytest.approx(1.0, rel=1e-3)
