"""PyTorch module → one Core ML function, through torch.jit.trace and coremltools.

The matrices stay function *inputs* here (`assemble` turns them into constants afterwards), so the converter sees
a graph without weights; and of its ninety passes only those run that change such a graph. Both together make the
conversion of a 30-layer model a matter of seconds.
"""

from __future__ import annotations

import gc
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .attention import registered_attention
from .graph import StatefulModel
from .selfdescription import PER_LAYER_INPUTS

PASSES = (
    "lower_complex_dialect_ops",
    "update_output_dtypes",
    "cast_optimization",
    "noop_elimination",
    "const_elimination",
    "sanitize_input_output_names",
    "const_deduplication",
    "fuse_gelu_tanh_approximation",
    "fuse_gelu_exact",
    "fuse_layernorm_or_instancenorm",
    "merge_consecutive_reshapes",
    "merge_consecutive_transposes",
    "fuse_transpose_matmul",
    "remove_redundant_ops",
    "dedup_op_and_var_names",
    "add_fp16_cast",
    "update_output_dtypes",
    "const_elimination",
    "dead_code_elimination",
    "cast_optimization",
    "dead_code_elimination",
    "const_elimination",
    "canonicalize_inplace_pattern",
    "prefer_state_in_downstream",
    "const_deduplication",
    "remove_redundant_ops",
    "topological_reorder",
    "dead_code_elimination",
    "dedup_op_and_var_names",
)


@dataclass(frozen=True)
class Lowered:
    """One converted function: its MIL proto, its description, and the file of its small constants.

    `model` is the converted MLModel; it owns the directory that `weights_file` lies in. `values` are constants of that
    file by value name, which hold other numbers than it (`replicate`).
    """

    function: Any
    description: Any
    weights_file: Path
    model: Any
    values: Mapping[str, Any] = field(default_factory=dict)


def value_name(parameter: str) -> str:
    """The MIL identifier of a Hugging Face parameter: ``model.norm.weight`` → ``model_norm_weight``."""
    return parameter.replace(".", "_")


def lower(model: StatefulModel, shapes: Mapping[str, tuple[int, ...]], chunk: int) -> Lowered:
    """Trace and convert `model` for chunks of `chunk` tokens."""
    return convert(trace(model, shapes, chunk), input_types(model, shapes, chunk), ("logits",), state_types(model))


def convert(traced: Any, inputs: list[Any], outputs: Sequence[str], states: list[Any]) -> Lowered:
    """A TorchScript trace as a Core ML function with float16 outputs of these names."""
    import coremltools as ct

    pipeline = ct.PassPipeline([f"common::{name}" for name in PASSES], "kobako")
    with lean_conversion() as validate:
        converted = ct.convert(
            traced, inputs=inputs, states=states, pass_pipeline=pipeline,
            outputs=[ct.TensorType(name, dtype=numpy_half()) for name in outputs],
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT16, compute_units=ct.ComputeUnit.CPU_ONLY, skip_model_load=True,
        )  # fmt: skip
        validate(converted._mil_program)
    spec = converted.get_spec()
    return Lowered(
        spec.mlProgram.functions["main"], spec.description, Path(converted.weights_dir) / "weight.bin", converted
    )


def trace(model: StatefulModel, shapes: Mapping[str, tuple[int, ...]], chunk: int) -> Any:
    """A TorchScript trace of `model`; the matrices are zeros that take no memory."""
    import torch

    model.chunk = chunk
    numbers = [torch.zeros(1, chunk, dtype=torch.int32)]
    numbers += [torch.zeros(1, dtype=torch.int32) for _ in number_names(chunk)]
    rows = [] if model.sizes.per_layer is None else [torch.zeros(1, chunk, *model.sizes.per_layer)]
    matrices = [torch.zeros(()).expand(shape) for shape in shapes.values()]
    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        registered_attention(lambda: model.masks),
        plain_names(),
        unworked(),
    ):
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, (*numbers, *rows, *matrices), check_trace=False)


def plain_names() -> Any:
    """Within this mode a function is called by the one of its names that coremltools knows."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Plain(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return (torch.mul if func is torch.multiply else func)(*args, **(kwargs or {}))

    return Plain()


def unworked() -> Any:
    """Within this mode matrix products are zeros: a trace keeps operations, not numbers.

    PyTorch would copy each fed matrix, which is one zero seen many times, to a whole one in float32.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    products = torch.ops.aten.mm.default, torch.ops.aten.addmm.default

    class Unworked(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in products:
                rows, matrix = args[-2:]
                return rows.new_zeros(rows.shape[0], matrix.shape[1])  # whole: a model may write into it
            return func(*args, **(kwargs or {}))

    return Unworked()


def number_names(chunk: int) -> tuple[str, ...]:
    """The inputs of one number each: a single token needs no `last_index`."""
    return ("position", "last_index") if chunk > 1 else ("position",)


def input_types(model: StatefulModel, shapes: Mapping[str, tuple[int, ...]], chunk: int) -> list[Any]:
    """Descriptions of all traced arguments, matrices included."""
    import coremltools as ct
    import numpy as np

    tokens = ct.TensorType("input_ids", shape=(1, chunk), dtype=np.int32)
    numbers = [ct.TensorType(name, shape=(1,), dtype=np.int32) for name in number_names(chunk)]
    sizes = model.sizes.per_layer
    rows = [] if sizes is None else [ct.TensorType(PER_LAYER_INPUTS, shape=(1, chunk, *sizes), dtype=numpy_half())]
    return [tokens, *numbers, *rows, *matrix_types(shapes)]


def matrix_types(shapes: Mapping[str, tuple[int, ...]]) -> list[Any]:
    """Descriptions of the matrices alone."""
    import coremltools as ct

    return [ct.TensorType(value_name(name), shape=shape, dtype=numpy_half()) for name, shape in shapes.items()]


def state_types(model: StatefulModel) -> list[Any]:
    """One K and one V state per layer, ``[1, H, S, D]`` float16, each with its own D."""
    import coremltools as ct

    return [
        ct.StateType(
            wrapped_type=ct.TensorType(shape=(1, heads, model.sizes.slots, dim), dtype=numpy_half()),
            name=f"{kind}_cache_{layer}",
        )
        for layer, (heads, *dims) in enumerate(model.sizes.caches)
        if layer in model.kept
        for kind, dim in zip("kv", dims, strict=True)
    ]


def numpy_half() -> Any:
    """numpy.float16, imported late."""
    import numpy as np

    return np.float16


@contextmanager
def lean_conversion() -> Iterator[Any]:
    """Within the block, coremltools is silent and checks the program once (the yielded function), not after each pass.

    The check after every pass is half of the conversion's time. The garbage collector, which finds nothing in
    graphs that stay alive, is off too.
    """
    from coremltools.converters.mil.mil.program import Program

    logger, validate = logging.getLogger("coremltools"), Program.validate
    level = logger.level
    gc.collect()
    gc.disable()
    logger.setLevel(logging.ERROR)
    Program.validate = lambda *_args, **_options: None
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield validate
    finally:
        Program.validate = validate
        logger.setLevel(level)
        gc.enable()
