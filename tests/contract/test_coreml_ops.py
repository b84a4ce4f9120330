"""The interpreter's operations against NumPy and PyTorch, on a program that coremltools built and saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.errors import BadArtifact

pytestmark = pytest.mark.heavy

RANDOM = np.random.default_rng(5)
X = RANDOM.uniform(-3, 3, (2, 3, 4)).astype(np.float32)
Y = RANDOM.uniform(0.5, 2, (2, 3, 4)).astype(np.float32)
I = np.array([5, 0, 2], np.int32)  # noqa: E741
TABLE = RANDOM.normal(size=(6, 4)).astype(np.float32)
WEIGHT = RANDOM.normal(size=(5, 4)).astype(np.float32)
BIAS = np.arange(5, dtype=np.float32)


def t(f: Callable[..., Any], *arrays: np.ndarray, **options: Any) -> np.ndarray:
    """A PyTorch function on arrays."""
    import torch

    result: np.ndarray = f(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays), **options).numpy()
    return result


def cases() -> dict[str, tuple[Callable[[Any, Any, Any, Any], Any], np.ndarray]]:
    """Name → (what to build from mb, x, y, i; the answer)."""
    from torch.nn import functional as f

    return {
        "add": (lambda mb, x, y, i: mb.add(x=x, y=y), X + Y),
        "sub": (lambda mb, x, y, i: mb.sub(x=x, y=y), X - Y),
        "div": (lambda mb, x, y, i: mb.real_div(x=x, y=y), X / Y),
        "pow": (lambda mb, x, y, i: mb.pow(x=y, y=np.float32(2.5)), Y**2.5),
        "mod": (lambda mb, x, y, i: mb.mod(x=x, y=y), np.mod(X, Y)),
        "maximum": (lambda mb, x, y, i: mb.maximum(x=x, y=y), np.maximum(X, Y)),
        "clip": (lambda mb, x, y, i: mb.clip(x=x, alpha=-1.0, beta=0.5), X.clip(-1, 0.5)),
        "rsqrt": (lambda mb, x, y, i: mb.rsqrt(x=y, epsilon=1e-3), 1 / np.sqrt(Y + 1e-3)),
        "inverse": (lambda mb, x, y, i: mb.inverse(x=y, epsilon=1e-4), 1 / (Y + 1e-4)),
        "log": (lambda mb, x, y, i: mb.log(x=y), np.log(Y)),
        "exp": (lambda mb, x, y, i: mb.exp(x=x), np.exp(X)),
        "sigmoid": (lambda mb, x, y, i: mb.sigmoid(x=x), 1 / (1 + np.exp(-X))),
        "silu": (lambda mb, x, y, i: mb.silu(x=x), t(f.silu, X)),
        "gelu": (lambda mb, x, y, i: mb.gelu(x=x, mode="EXACT"), t(f.gelu, X)),
        "gelu_tanh": (lambda mb, x, y, i: mb.gelu(x=x, mode="TANH_APPROXIMATION"), t(f.gelu, X, approximate="tanh")),
        "softplus": (lambda mb, x, y, i: mb.softplus(x=x), t(f.softplus, X)),
        "elu": (lambda mb, x, y, i: mb.elu(x=x, alpha=0.7), t(f.elu, X, alpha=0.7)),
        "less": (lambda mb, x, y, i: mb.cast(x=mb.less(x=x, y=y), dtype="fp32"), (X < Y).astype(np.float32)),
        "select": (lambda mb, x, y, i: mb.select(cond=mb.greater(x=x, y=y), a=x, b=y), np.where(X > Y, X, Y)),
        "cast": (lambda mb, x, y, i: mb.cast(x=x, dtype="int32"), np.trunc(X)),
        "reduce_max": (lambda mb, x, y, i: mb.reduce_max(x=x, axes=[1]), X.max(1)),
        "reduce_mean": (lambda mb, x, y, i: mb.reduce_mean(x=x, axes=[-1], keep_dims=True), X.mean(-1, keepdims=True)),
        "l2": (lambda mb, x, y, i: mb.reduce_l2_norm(x=x, axes=[0, 2]), np.sqrt((X * X).sum((0, 2)))),
        "argmax": (lambda mb, x, y, i: mb.reduce_argmax(x=x, axis=2), X.argmax(2)),
        "softmax": (lambda mb, x, y, i: mb.softmax(x=x, axis=1), t(f.softmax, X, dim=1)),
        "layer_norm": (
            lambda mb, x, y, i: mb.layer_norm(x=x, axes=[-1], epsilon=1e-3),
            t(f.layer_norm, X, normalized_shape=(4,), eps=1e-3),
        ),
        "cumsum": (lambda mb, x, y, i: mb.cumsum(x=x, axis=1), X.cumsum(1)),
        "matmul": (lambda mb, x, y, i: mb.matmul(x=x, y=y, transpose_y=True), X @ Y.transpose(0, 2, 1)),
        "linear": (lambda mb, x, y, i: mb.linear(x=x, weight=WEIGHT, bias=BIAS), X @ WEIGHT.T + BIAS),
        "sdpa": (
            lambda mb, x, y, i: mb.scaled_dot_product_attention(query=x, key=y, value=y),
            t(f.scaled_dot_product_attention, X, Y, Y),
        ),
        "sdpa_bool": (
            lambda mb, x, y, i: mb.scaled_dot_product_attention(
                query=x, key=y, value=y, attn_mask=np.tri(3, dtype=bool)
            ),
            t(f.scaled_dot_product_attention, X, Y, Y, is_causal=True),
        ),
        "sdpa_open_end": (
            lambda mb, x, y, i: mb.scaled_dot_product_attention(
                query=x, key=y, value=y, attn_mask=np.where([1, 1, 0], 0, -1e4).astype(np.float32)
            ),
            t(f.scaled_dot_product_attention, X, Y[:, :2], Y[:, :2]),
        ),
        "reshape": (lambda mb, x, y, i: mb.reshape(x=x, shape=[-1, 6]), X.reshape(4, 6)),
        "transpose": (lambda mb, x, y, i: mb.transpose(x=x, perm=[2, 0, 1]), X.transpose(2, 0, 1)),
        "expand": (lambda mb, x, y, i: mb.expand_dims(x=x, axes=[0, -1]), X[None, ..., None]),
        "concat": (lambda mb, x, y, i: mb.concat(values=(x, y), axis=1), np.concatenate((X, Y), 1)),
        "stack": (lambda mb, x, y, i: mb.stack(values=(x, y), axis=2), np.stack((X, Y), 2)),
        "split": (lambda mb, x, y, i: mb.split(x=x, split_sizes=[1, 3], axis=2)[1], X[:, :, 1:]),
        "tile": (lambda mb, x, y, i: mb.tile(x=x, reps=[1, 2, 1]), np.tile(X, (1, 2, 1))),
        "pad": (
            lambda mb, x, y, i: mb.pad(x=x, pad=[1, 0, 0, 2], constant_val=7.0),
            np.pad(X, ((0, 0), (1, 0), (0, 2)), constant_values=7),
        ),
        "slice": (
            lambda mb, x, y, i: mb.slice_by_index(
                x=x, begin=[0, 0, -3], end=[0, 0, -1], begin_mask=[True, True, False], end_mask=[True, True, False]
            ),
            X[:, :, -3:-1],
        ),
        "slice_squeeze": (
            lambda mb, x, y, i: mb.slice_by_index(
                x=x, begin=[1, 0, 0], end=[0, 3, 4], squeeze_mask=[True, False, False], stride=[1, 2, 1]
            ),
            X[1, ::2],
        ),
        "slice_by_size": (lambda mb, x, y, i: mb.slice_by_size(x=x, begin=[0, 1, 1], size=[2, -1, 2]), X[:, 1:, 1:3]),
        "gather": (lambda mb, x, y, i: mb.gather(x=TABLE, indices=i, axis=0), TABLE[I]),
        "gather_axis": (
            lambda mb, x, y, i: mb.gather(x=x, indices=np.array([[2, 0]], np.int32), axis=1),
            X[:, [[2, 0]]],
        ),
        "slice_update": (
            lambda mb, x, y, i: mb.slice_update(
                x=x, update=mb.slice_by_size(x=y, begin=[0, 0, 0], size=[2, 1, 4]), begin=[0, 1, 0], end=[2, 2, 4]
            ),
            np.stack((X[:, 0], Y[:, 0], X[:, 2]), 1),
        ),
        "band_part": (lambda mb, x, y, i: mb.band_part(x=x, lower=-1, upper=0), np.tril(X)),
        "one_hot": (lambda mb, x, y, i: mb.one_hot(indices=i, one_hot_vector_size=6), np.eye(6)[I]),
        "range": (lambda mb, x, y, i: mb.mul(x=mb.range_1d(start=1, end=7, step=2), y=i), np.array([1, 3, 5]) * I),
        "fill": (lambda mb, x, y, i: mb.add(x=mb.fill(shape=[2, 1, 1], value=3.0), y=x), X + 3),
    }


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A saved float32 program whose outputs are all cases, and the output name of each case."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813

    wanted = cases()

    @mb.program(
        input_specs=[
            mb.TensorSpec(X.shape),
            mb.TensorSpec(Y.shape),
            mb.TensorSpec(I.shape, ct.converters.mil.mil.types.int32),
        ],
        opset_version=ct.target.iOS18,
    )
    def program(x: Any, y: Any, i: Any) -> Any:
        return tuple(mb.identity(x=build(mb, x, y, i), name=f"out_{name}") for name, (build, _) in wanted.items())

    model = ct.convert(
        program, compute_precision=ct.precision.FLOAT32, minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True, pass_pipeline=ct.PassPipeline.EMPTY,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("ops") / "ops.mlpackage"
    model.save(str(path))
    return path, {name: f"out_{name}" for name in wanted}


def test_every_operation_gives_the_right_numbers(package: tuple[Path, dict[str, str]]) -> None:
    from kobako.targets.coreml.mil.interpreter import Interpreter
    from kobako.targets.coreml.mil.program import read_package

    path, outputs = package
    got = Interpreter(read_package(path), "float32").run("main", {"x": X, "y": Y, "i": I})
    for name, (_, answer) in cases().items():
        assert got[outputs[name]].shape == answer.shape, name
        np.testing.assert_allclose(got[outputs[name]], answer, rtol=2e-5, atol=2e-6, err_msg=name)


def test_wrong_inputs_are_refused(package: tuple[Path, dict[str, str]]) -> None:
    from kobako.pipeline.errors import UsageError
    from kobako.targets.coreml.mil.interpreter import Interpreter
    from kobako.targets.coreml.mil.program import read_package

    machine = Interpreter(read_package(package[0]))
    with pytest.raises(UsageError, match=r"must have shape \(2, 3, 4\)"):
        machine.run("main", {"x": X[:1], "y": Y, "i": I})
    with pytest.raises(UsageError, match="needs the input 'i'"):
        machine.run("main", {"x": X, "y": Y})
    with pytest.raises(BadArtifact, match="no function 'other'"):
        machine.run("other", {})
    with pytest.raises(BadArtifact, match="NaN"):
        machine.run("main", {"x": X * np.nan, "y": Y, "i": I})
    with pytest.raises(BadArtifact, match="gather"):
        machine.run("main", {"x": X, "y": Y, "i": I + 90})
