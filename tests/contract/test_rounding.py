"""Blocks, error feedback and calibration: grids are found again, outputs change less than by rounding to nearest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from kobako.pipeline import blocks
from kobako.pipeline.calibrate import Call, Examples, quantize_layers
from kobako.pipeline.contracts import FloatArray, Quantized
from kobako.pipeline.gptq import gptq
from kobako.pipeline.smooth import block_scales_of
from kobako.pipeline.tune import tune
from kobako.pipeline.weights import QuantizedTensor, round_to_nearest

from tests.families import SHAPES, config_of, random_values

pytestmark = pytest.mark.heavy
GROUP = 32


def on_grid(rows: int = 48, inputs: int = 128, steps: int = 15, seed: int = 0) -> FloatArray:
    """A matrix whose blocks are `steps` + 1 equidistant values, as a GGUF Q4_1 file holds them."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, steps + 1, (rows, inputs // GROUP, GROUP))
    codes[:, :, 0], codes[:, :, 1] = 0, steps
    scales = random.uniform(0.01, 0.05, (rows, inputs // GROUP, 1)).astype(np.float16).astype(np.float32)
    lowest = random.normal(-0.3, 0.1, scales.shape).astype(np.float16).astype(np.float32)
    return np.asarray((codes * scales + lowest).reshape(rows, inputs), np.float32)


def in_steps(weight: FloatArray) -> float:
    """RMS error of the fitted grid, in steps."""
    found = blocks.fit(weight, GROUP)
    error = (blocks.round_to_grid(weight, found).dequantize() - weight).reshape(*found.scales.shape, -1)
    return float(np.sqrt(((error / found.scales[:, :, None]) ** 2).mean()))


@pytest.mark.parametrize("steps", [15, 12, 8])
def test_a_grid_that_is_there_is_found_again(steps: int) -> None:
    weight = on_grid(steps=steps)
    assert in_steps(weight) < 0.06
    assert blocks.lies_on_grid(weight, GROUP)


def test_noise_is_no_grid() -> None:
    weight = np.random.default_rng(0).normal(size=(48, 128)).astype(np.float32)
    assert 0.2 < in_steps(weight) < 0.35
    assert not blocks.lies_on_grid(weight, GROUP)


def test_smoothing_by_blocks_keeps_the_grid_and_by_channels_does_not() -> None:
    weight, inputs = on_grid(), np.geomspace(0.1, 30, 128).astype(np.float32)
    shared = block_scales_of(inputs, 0.5, GROUP)
    assert len(np.unique(shared)) == 4
    assert np.exp(np.log(shared).mean()) == pytest.approx(1.0, rel=1e-3)
    assert blocks.lies_on_grid(weight * shared, GROUP)
    assert not blocks.lies_on_grid(weight * block_scales_of(inputs, 0.5, 1), GROUP)


def test_constant_and_empty_blocks_are_exact_enough() -> None:
    weight = np.zeros((2, 64), np.float32)
    weight[0, :32], weight[1, 32:] = 0.75, -3.0
    value = blocks.round_to_grid(weight, blocks.fit(weight, GROUP))
    np.testing.assert_allclose(value.dequantize(), weight, atol=0.02)
    assert value.offsets is not None
    assert np.isfinite(value.offsets).all()


def test_important_inputs_are_rounded_more_carefully() -> None:
    weight = np.random.default_rng(1).normal(size=(64, 128)).astype(np.float32)
    importance = np.ones(128, np.float32)
    importance[::GROUP] = 1000.0

    def error(weights: FloatArray | None) -> float:
        value = blocks.round_to_grid(weight, blocks.fit(weight, GROUP, weights)).dequantize()
        return float(np.square(value - weight)[:, ::GROUP].mean())

    assert error(importance) < 0.5 * error(None)


def correlated(tokens: int, inputs: int) -> FloatArray:
    random = np.random.default_rng(2)
    mixing = random.normal(size=(inputs // 4, inputs))
    noise = 0.1 * random.normal(size=(tokens, inputs))
    return np.asarray(random.normal(size=(tokens, inputs // 4)) @ mixing + noise, np.float32)


def test_error_feedback_halves_the_error_of_the_outputs() -> None:
    weight = np.random.default_rng(3).normal(size=(96, 128)).astype(np.float32)
    x, unseen = correlated(1024, 128), correlated(2048, 128)[1024:]
    moments = np.asarray(x.T @ x / len(x), np.float32)

    def error(value: FloatArray) -> float:
        return float(np.square(unseen @ (value - weight).T).mean())

    symmetric = error(round_to_nearest(weight, 4, GROUP).dequantize())
    fitted = error(blocks.round_to_grid(weight, blocks.fit(weight, GROUP)).dequantize())
    fed_back = error(gptq(weight, moments, GROUP).dequantize())
    assert fitted < symmetric
    assert fed_back < 0.5 * fitted


def test_error_feedback_leaves_a_grid_as_it_is() -> None:
    weight, x = on_grid(), correlated(512, 128)
    value = gptq(weight, np.asarray(x.T @ x / len(x), np.float32), GROUP)
    assert np.abs(value.dequantize() - weight).max() < 0.5 * value.scales.max()


class Gated(torch.nn.Module):
    """A feed-forward layer with a residual stream, as decoders have them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.up = (torch.nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = torch.nn.Linear(2 * width, width, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + self.down(torch.nn.functional.silu(self.gate(states)) * self.up(states))


def tuned(values: dict[str, FloatArray]) -> tuple[dict[str, QuantizedTensor], dict[str, QuantizedTensor], list[float]]:
    """Codes before and after tuning, and the layer's error on other text before and after."""
    layer = Gated(128)
    states = [torch.from_numpy(correlated(96, 128)[None, start : start + 24]) for start in (0, 24, 48, 72)]
    starts = {name: blocks.round_to_grid(value, blocks.fit(value, GROUP)) for name, value in values.items()}

    def put(tensors: Mapping[str, FloatArray]) -> None:
        for name, value in tensors.items():
            layer.get_submodule(name).weight.copy_(torch.from_numpy(value))

    def error() -> float:
        return float((layer(unseen) - wanted).square().mean())

    with torch.no_grad():
        put(values)
        said = [layer(one) for one in states]
        unseen = torch.from_numpy(correlated(2048, 128)[1024:])
        wanted = layer(unseen)
        put({name: tensor.dequantize() for name, tensor in starts.items()})
        errors = [error()]
        found = tune(layer, Examples(states, said, [Call((), {})] * 4), values, starts)
        put({name: tensor.dequantize() for name, tensor in found.items()})
        return starts, found, [*errors, error()]


def test_codes_tuned_together_make_the_layer_better() -> None:
    random = np.random.default_rng(5)
    shapes = {"gate": (256, 128), "up": (256, 128), "down": (128, 256)}
    starts, found, (before, after) = tuned(
        {name: random.normal(size=shape).astype(np.float32) * np.float32(0.05) for name, shape in shapes.items()}
    )
    assert after < 0.9 * before
    for name, tensor in found.items():
        assert np.abs(tensor.codes.astype(int) - starts[name].codes).max() == 1
        assert np.array_equal(tensor.scales, starts[name].scales)


def test_codes_that_are_right_already_are_left_alone() -> None:
    shapes = {"gate": (256, 128), "up": (256, 128), "down": (128, 256)}
    starts, found, _ = tuned({name: on_grid(*shape) for name, shape in shapes.items()})
    for name, tensor in found.items():
        assert np.array_equal(tensor.codes, starts[name].codes)


def test_the_reference_computes_shifts_beside_the_symmetric_part(tiny: Callable[..., Quantized]) -> None:
    from kobako.pipeline.reference.eager import dynamic_int8_activations, quantized_model
    from kobako.pipeline.weights import open_weights

    quantized = tiny("int4")
    model = quantized_model(quantized)
    layer = model.model.layers[0].mlp.down_proj
    weight = open_weights(quantized.directory).dequantized("model.layers.0.mlp.down_proj.weight")
    x = torch.randn(3, weight.shape[1])
    with torch.inference_mode():
        np.testing.assert_allclose(layer(x), x.numpy() @ weight.T, atol=1e-4)
        with dynamic_int8_activations(model):
            rounded = layer(x)
        assert 0 < (rounded - layer(x)).abs().max() < 0.2


def test_a_head_is_calibrated_on_every_token(tiny: Callable[..., Quantized]) -> None:
    """Of the last tokens alone its moments would be of a rank that says little."""
    from kobako.pipeline.calibrate import input_moments
    from kobako.pipeline.reference.eager import quantized_model

    model = quantized_model(tiny("float16"))
    sequences = [list(range(3, 40)), list(range(90, 120))]
    with torch.inference_mode():
        states = [model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0] for ids in sequences]
    rows = torch.cat(states).numpy()
    assert np.allclose(input_moments(model, "lm_head", sequences), rows.T @ rows / len(rows), atol=1e-4)


@pytest.mark.parametrize("model_type", ["gemma3n_text", "gemma4_text"])
def test_what_a_layer_should_say_is_what_the_original_said(model_type: str) -> None:
    """Also in a layer that reads the keys and values of an earlier one, which was rounded meanwhile."""
    from kobako.pipeline import families
    from kobako.pipeline.reference.eager import empty_model, read_ids, set_parameter

    shape = next(one for one in SHAPES if one.model_type == model_type)
    model, family = empty_model(config_of(shape)), families.get(model_type)
    for name, parameter in list(model.named_parameters()):
        set_parameter(model, name, torch.from_numpy(random_values(name, parameter.shape, family)))
    said: list[torch.Tensor] = []
    ids = np.random.default_rng(0).integers(3, 300, 40).tolist()
    handles = [layer.register_forward_hook(lambda _m, _i, output: said.append(output)) for layer in model.model.layers]
    with torch.no_grad():
        read_ids(model, ids)
    for handle in handles:
        handle.remove()
    wanted: list[torch.Tensor] = []
    quantize_layers(
        model,
        "model.layers",
        [ids],
        lambda _name, value, _moments: value * np.float32(0.7),
        lambda _done: None,
        lambda _path, _layer, examples: wanted.extend(examples.wanted),
    )
    assert len(wanted) == len(said) == 5
    for one, other in zip(wanted, said, strict=True):
        torch.testing.assert_close(one, other[0] if isinstance(other, tuple) else other, rtol=1e-4, atol=1e-4)
