"""Encoders: Quantized → ``model.mlpackage`` with one function for each length of text, over shared weights.

Shape legend: T tokens of a function, N heads, D head dimension, E numbers of the answer.
"""

from __future__ import annotations

import platform
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from kobako.pipeline import families
from kobako.pipeline.contracts import Exported, ExportOptions, FloatArray, Progress, Quantized
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.heads import head_of
from kobako.pipeline.reference.eager import empty_encoder, load_config
from kobako.pipeline.reference.encoder import Encoder, fold_groups, restore_biases, shared_biases, unfold_groups
from kobako.pipeline.reference.structure import encoder_lengths, fitting_length
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface

from .attention import capped
from .export import TOKENIZER_FILES, write
from .graph import fill, refit
from .inspection import read_checked
from .lower import Lowered, convert, matrix_types, unworked, value_name
from .mil.program import Program
from .selfdescription import EncoderDescription, read_encoder

ATTENTION = "kobako_coreml_encoder"
PREFIX = "encode_"
IDS, MASK, ANSWER = "input_ids", "mask", "answer"
Array = npt.NDArray[Any]


def export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
    """Write ``model.mlpackage`` and the tokenizer into `out`. Raises UnsupportedModel for an unknown norm."""
    lengths = encoder_lengths(options.context_tokens)
    model, shapes = fed_encoder(quantized)
    lowered: dict[str, Lowered] = {}
    for number, length in enumerate(lengths):
        progress(0.1 + 0.8 * number / len(lengths), f"converting {PREFIX}{length}")
        lowered[f"{PREFIX}{length}"] = convert(
            trace(model, shapes, length), input_types(shapes, length), (ANSWER,), states=[]
        )
    progress(0.9, "writing weights")
    described = EncoderDescription(
        name=quantized.name, model_type=quantized.model_type, recipe=quantized.recipe.name, lengths=lengths,
        size=head_of(quantized.directory).size, weights={value_name(name): name for name in shapes},
    )  # fmt: skip
    write(quantized, lowered, list(shapes), described.metadata(), out, default=f"{PREFIX}{lengths[-1]}")
    for name in TOKENIZER_FILES:
        shutil.copyfile(quantized.tokenizer_dir / name, out / name)
    progress(1.0, "done")
    return Exported(
        target="coreml", directory=out,
        files=tuple(sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())),
        activations="float16", context_tokens=options.context_tokens, kind="encoder",
        details={"functions": sorted(lowered), "minimum_ios": 18},
    )  # fmt: skip


class FedEncoder(nn.Module):
    """The traced module: ``(input_ids [1, T], mask [1, T], *matrices)`` → answer ``[1, E]``."""

    def __init__(self, encoder: Encoder, table: dict[str, torch.Tensor], names: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder, self.table, self.names = encoder, table, names

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, *matrices: torch.Tensor) -> torch.Tensor:
        self.table.update(zip(self.names, matrices, strict=True))
        answer: torch.Tensor = self.encoder(input_ids, mask)
        return answer


def fed_encoder(quantized: Quantized) -> tuple[FedEncoder, dict[str, tuple[int, ...]]]:
    """The module to trace, and the shapes ``[O, I]`` of the matrices it must be fed, by Hugging Face name."""
    head, config = head_of(quantized.directory), load_config(quantized.directory)
    with registered_attention():
        model = empty_encoder(config, head, ATTENTION)
    shared = shared_biases(model)
    table, shapes = dict[str, torch.Tensor](), fill(model, quantized)
    restore_biases(model, shared)
    refit(model, table, shapes, families.get(quantized.model_type), config.max_position_embeddings)
    return FedEncoder(Encoder(model, head, additive=True), table, tuple(shapes)).eval(), shapes


@contextmanager
def registered_attention() -> Iterator[None]:
    """Within the block transformers' models built with ATTENTION use our attention function."""
    AttentionInterface.register(ATTENTION, attend)
    try:
        yield
    finally:
        AttentionInterface._global_mapping.pop(ATTENTION, None)


def attend(
    _module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor,
    scaling: float | None = None, position_bias: torch.Tensor | None = None, **named: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """``[1, N, T, D]`` each, mask ``[1, 1, 1 or T, T]`` and bias that are added to the scores → ``[1, T, N, D]``.

    Keys and values may have fewer heads; those have no bias.
    """
    rows, mask = fold_groups(query, mask, key.shape[1])
    factor = (scaling or query.shape[-1] ** -0.5) * query.shape[-1] ** 0.5
    if abs(factor - 1.0) > 1e-6:  # the fused Core ML op has no scale input
        rows = rows * factor
    shown = mask.expand(1, 1, rows.shape[2], key.shape[2])
    if position_bias is not None:
        shown = shown + position_bias
    if named.get("softcap") is None:
        output = functional.scaled_dot_product_attention(rows, key, value, attn_mask=shown)
    else:
        output = capped(rows, key, value, shown, named["softcap"])
    return unfold_groups(output, query).transpose(1, 2), None


def trace(model: FedEncoder, shapes: Mapping[str, tuple[int, ...]], length: int) -> Any:
    """A TorchScript trace for texts of `length` tokens; the matrices are zeros that take no memory."""
    numbers = [torch.zeros(1, length, dtype=torch.int32), torch.ones(1, length, dtype=torch.int32)]
    matrices = [torch.zeros(()).expand(shape) for shape in shapes.values()]
    with torch.no_grad(), warnings.catch_warnings(), registered_attention(), unworked():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, (*numbers, *matrices), check_trace=False)


def input_types(shapes: Mapping[str, tuple[int, ...]], length: int) -> list[Any]:
    """Descriptions of all traced arguments, matrices included."""
    import coremltools as ct

    numbers = [ct.TensorType(name, shape=(1, length), dtype=np.int32) for name in (IDS, MASK)]
    return [*numbers, *matrix_types(shapes)]


class Session(Protocol):
    """A loaded package: one function at a time."""

    def run(self, function: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs of one function. Raises BadArtifact."""
        ...

    def close(self) -> None:
        """Give the memory back; nothing can be run afterwards."""
        ...


class CoreMLSession:
    """Core ML through coremltools; macOS only. One MLModel per function, loaded when it is first needed."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._models: dict[str, Any] = {}

    def run(self, function: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Predict. Raises BadArtifact when Core ML refuses or gives infinities."""
        import coremltools as ct

        if function not in self._models:
            self._models[function] = ct.models.MLModel(
                str(self._package), function_name=function, compute_units=ct.ComputeUnit.CPU_AND_NE
            )
        try:
            outputs: dict[str, Array] = self._models[function].predict(dict(inputs))
        except RuntimeError as error:
            raise BadArtifact(f"Core ML cannot run {function}: {error}.", "Export the model again.") from error
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise BadArtifact(f"{function} answers with infinity or NaN.", "On Linux, validate names the operation.")
        return outputs

    def close(self) -> None:
        """Let the models go."""
        self._models.clear()


class CoreMLEncoder:
    """Fulfils `protocols.EncoderRuntime` over a Session."""

    def __init__(self, session: Session, description: EncoderDescription, name: str) -> None:
        self.name, self._session, self._lengths = name, session, description.lengths

    def encode(self, ids: Sequence[int], mask: Sequence[int]) -> FloatArray:
        """The answer ``[E]``, from the shortest function that the tokens fit. Raises UsageError."""
        length = fitting_length(self._lengths, len(ids), max(self._lengths))
        inputs = {}
        for name, values in ((IDS, ids), (MASK, mask)):
            inputs[name] = np.zeros((1, length), np.int32)
            inputs[name][0, : len(values)] = values
        answer = self._session.run(f"{PREFIX}{length}", inputs)[ANSWER]
        return np.ascontiguousarray(answer, dtype=np.float32).reshape(-1)

    def close(self) -> None:
        """Give everything back."""
        self._session.close()


def open_encoder(package: Path) -> CoreMLEncoder:
    """Load a package. Raises BadArtifact when it is not one of an encoder."""
    program = read_checked(package)
    description = read_encoder(program.metadata)
    check_interface(program, description)
    if sys.platform == "darwin":
        return CoreMLEncoder(CoreMLSession(package), description, f"Core ML, macOS {platform.mac_ver()[0]}")
    from .mil.interpreter import Interpreter

    return CoreMLEncoder(Interpreter(program), description, "kobako's MIL interpreter")


def check_interface(program: Program, description: EncoderDescription) -> None:
    """Raise BadArtifact when the functions are not what the description promises."""
    for length in description.lengths:
        function = program.functions.get(f"{PREFIX}{length}")
        shapes = {name: kind.shape for name, kind in function.inputs.items()} if function else {}
        if function is None or shapes != {IDS: (1, length), MASK: (1, length)} or ANSWER not in function.outputs:
            raise BadArtifact(f"{program.path.name} has no function for {length} tokens.", "Export the model again.")
    if not description.lengths:
        raise BadArtifact(f"{program.path.name} names no lengths of text.", "Export the model again.")
