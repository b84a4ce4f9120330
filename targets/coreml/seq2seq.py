"""Encoder-decoders: Quantized → ``model.mlpackage`` with functions ``encode_T`` and ``decode`` over the same weights.

Caches are inputs and outputs: what ``encode_T`` gives of a source of up to T tokens goes into every ``decode``, what
``decode`` gives into the next.

Shape legend: T tokens of the source = S slots of the answer's cache = the context, N heads, D head dimension, L layers.
"""

from __future__ import annotations

import platform
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kobako.pipeline import families
from kobako.pipeline.contracts import Exported, ExportOptions, FloatArray, Progress, Quantized
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.reference.eager import empty_seq2seq, load_config
from kobako.pipeline.reference.positions import refit
from kobako.pipeline.reference.seq2seq import Continues, Reads, state_names, state_shape, tables_read, used_by
from kobako.pipeline.reference.structure import embedding_scale, encoder_lengths, fitting_length
from kobako.pipeline.seq2seq.facts import facts_of
from torch import nn

from .encoder import ATTENTION, IDS, MASK, CoreMLSession, Session, registered_attention
from .export import TOKENIZER_FILES, write
from .graph import FedEmbedding, fill
from .graph import refit as refit_modules
from .inspection import read_checked
from .lower import Lowered, convert, matrix_types, numpy_half, unworked, value_name
from .mil.program import Program
from .selfdescription import Seq2SeqDescription, read_seq2seq

ENCODE, DECODE = "encode", "decode"
TOKEN, POSITION, LOGITS, NEXT = "token", "position", "logits", "next_"
Shapes = dict[str, tuple[int, ...]]


def export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
    """Write ``model.mlpackage`` and the tokenizer into `out`. Raises UnsupportedModel for an unknown norm."""
    context = options.context_tokens
    model, table, shapes = fed_model(quantized, context)
    lowered = functions(model, table, shapes, context, progress)
    progress(0.9, "writing weights")
    described = Seq2SeqDescription(
        name=quantized.name, model_type=quantized.model_type, recipe=quantized.recipe.name, context_tokens=context,
        lengths=encoder_lengths(context), layers=len(model.get_submodule(families.get(quantized.model_type).layers)),
        vocabulary=model.config.vocab_size, weights={value_name(name): name for name in shapes},
    )  # fmt: skip
    write(quantized, lowered, list(shapes), described.metadata(), out, default=DECODE)
    for name in TOKENIZER_FILES:
        shutil.copyfile(quantized.tokenizer_dir / name, out / name)
    progress(1.0, "done")
    return Exported(
        target="coreml", directory=out,
        files=tuple(sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())),
        activations="float16", context_tokens=context, kind="seq2seq",
        details={"functions": sorted(lowered), "minimum_ios": 18, **facts_of(quantized.directory)},
    )  # fmt: skip


def functions(
    model: Any, table: dict[str, torch.Tensor], shapes: Shapes, context: int, progress: Progress
) -> dict[str, Lowered]:
    """All functions, by name."""
    family = families.get(model.config.model_type)
    layers, shape = len(model.get_submodule(family.layers)), state_shape(model, context)
    cross, own = state_names(layers, "cross"), state_names(layers, "self")
    lengths, lowered = encoder_lengths(context), dict[str, Lowered]()
    read, used = Reads(model, family, context), {one: shapes[one] for one in used_by(shapes, family, reading=True)}
    for count, length in enumerate(lengths):
        progress(0.1 + 0.4 * count / len(lengths), f"converting {ENCODE}_{length}")
        lowered[f"{ENCODE}_{length}"] = converted(Fed(read, table, tuple(used)), source_of(length), {}, used, cross)
    progress(0.5, f"converting {DECODE}")
    used = {one: shapes[one] for one in used_by(shapes, family, reading=False)}
    numbers: Shapes = {TOKEN: (1, 1), POSITION: (1,), MASK: (1, context)}
    caches: Shapes = dict.fromkeys((*cross, *own), shape)
    answers = [LOGITS, *(NEXT + name for name in own)]
    lowered[DECODE] = converted(Fed(Continues(model, family), table, tuple(used)), numbers, caches, used, answers)
    return lowered


def source_of(length: int) -> Shapes:
    """Inputs of the function that reads so many tokens."""
    return {IDS: (1, length), MASK: (1, length)}


def converted(fed: Fed, numbers: Shapes, caches: Shapes, matrices: Shapes, outputs: Sequence[str]) -> Lowered:
    """One function."""
    traced = trace(fed.eval(), numbers, caches, matrices)
    return convert(traced, input_types(numbers, caches, matrices), outputs, states=[])


class Fed(nn.Module):
    """The traced module: a step whose matrices are its last arguments."""

    def __init__(self, step: nn.Module, table: dict[str, torch.Tensor], names: tuple[str, ...]) -> None:
        super().__init__()
        self.step, self.table, self.names = step, table, names

    def forward(self, *arguments: torch.Tensor) -> Any:
        own = len(arguments) - len(self.names)
        self.table.update(zip(self.names, arguments[own:], strict=True))
        return self.step(*arguments[:own])


def fed_model(quantized: Quantized, context: int) -> tuple[Any, dict[str, torch.Tensor], dict[str, tuple[int, ...]]]:
    """The model, the table its matrices are looked up in, and their shapes ``[O, I]`` by Hugging Face name."""
    family = families.get(quantized.model_type)
    with registered_attention():
        model = empty_seq2seq(load_config(quantized.directory), ATTENTION)
    table, shapes, tables = dict[str, torch.Tensor](), fill(model, quantized), tables_read(model)
    refit(model, context, torch.int32)
    for path, name in tables.items():
        scale = embedding_scale(model.get_submodule(path)) * family.residual_scale
        model.set_submodule(path, FedEmbedding(table, name, scale))
    refit_modules(model, table, shapes, family, context)
    return model, table, shapes


def trace(fed: Fed, numbers: Shapes, caches: Shapes, matrices: Shapes) -> Any:
    """A TorchScript trace; the matrices are zeros that take no memory."""
    given = [torch.zeros(shape, dtype=torch.int32) for shape in numbers.values()]
    given += [torch.zeros(shape) for shape in caches.values()]
    given += [torch.zeros(()).expand(shape) for shape in matrices.values()]
    with torch.no_grad(), warnings.catch_warnings(), registered_attention(), unworked():
        warnings.simplefilter("ignore")
        return torch.jit.trace(fed, tuple(given), check_trace=False)


def input_types(numbers: Shapes, caches: Shapes, matrices: Shapes) -> list[Any]:
    """Descriptions of all traced arguments, matrices included."""
    import coremltools as ct

    integers = [ct.TensorType(name, shape=shape, dtype=np.int32) for name, shape in numbers.items()]
    halves = [ct.TensorType(name, shape=shape, dtype=numpy_half()) for name, shape in caches.items()]
    return [*integers, *halves, *matrix_types(matrices)]


class CoreMLSeq2Seq:
    """Fulfils `protocols.Seq2SeqSteps` over a Session."""

    def __init__(self, session: Session, description: Seq2SeqDescription, program: Program, name: str) -> None:
        self.name, self._session, self._context = name, session, description.context_tokens
        self._lengths = description.lengths
        self._caches = {
            one: np.zeros(program.functions[DECODE].inputs[one].shape, np.float16)
            for one in state_names(description.layers, "self")
        }
        self._source: dict[str, Any] = {}

    def read(self, ids: Sequence[int], mask: Sequence[int]) -> None:
        """Run the shortest encoder that the source fits, padded."""
        length = fitting_length(self._lengths, len(ids), self._context)
        padded = np.zeros((2, 1, self._context), np.int32)
        padded[0, 0, : len(ids)], padded[1, 0, : len(mask)] = ids, mask
        found = self._session.run(f"{ENCODE}_{length}", {IDS: padded[0, :, :length], MASK: padded[1, :, :length]})
        self._source = {MASK: padded[1], **found}

    def step(self, token: int, position: int) -> FloatArray:
        """Run ``decode``: logits ``[V]``."""
        numbers = {TOKEN: np.asarray([[token]], np.int32), POSITION: np.asarray([position], np.int32)}
        found = self._session.run(DECODE, {**numbers, **self._source, **self._caches})
        self._caches = {name: found[NEXT + name] for name in self._caches}
        return np.ascontiguousarray(found[LOGITS], dtype=np.float32).reshape(-1)

    def close(self) -> None:
        """Give everything back."""
        self._session.close()


def open_seq2seq(package: Path) -> CoreMLSeq2Seq:
    """Load a package. Raises BadArtifact when it is not one of an encoder-decoder."""
    program = read_checked(package)
    description = read_seq2seq(program.metadata)
    check_interface(program, description)
    if sys.platform == "darwin":
        name = f"Core ML, macOS {platform.mac_ver()[0]}"
        return CoreMLSeq2Seq(CoreMLSession(package), description, program, name)
    from .mil.interpreter import Interpreter

    return CoreMLSeq2Seq(Interpreter(program), description, program, "kobako's MIL interpreter")


def check_interface(program: Program, description: Seq2SeqDescription) -> None:
    """Raise BadArtifact when the functions are not what the description promises."""
    cross, own = (state_names(description.layers, kind) for kind in ("cross", "self"))
    context = description.context_tokens
    wanted: dict[str, tuple[Shapes, Sequence[str], Sequence[str]]] = {
        f"{ENCODE}_{length}": (source_of(length), (), cross) for length in {*description.lengths, context}
    }
    numbers: Shapes = {TOKEN: (1, 1), POSITION: (1,), MASK: (1, context)}
    wanted[DECODE] = (numbers, (*cross, *own), [LOGITS, *(NEXT + one for one in own)])
    for name, (numbers, caches, outputs) in wanted.items():
        function = program.functions.get(name)
        shapes = {key: kind.shape for key, kind in function.inputs.items()} if function else {}
        if (
            function is None
            or shapes.keys() != {*numbers, *caches}
            or any(shapes[key] != shape for key, shape in numbers.items())
            or any(len(shapes[key]) != 4 for key in caches)
            or not set(outputs) <= set(function.outputs)
        ):
            raise BadArtifact(f"{program.path.name} has no function {name} as described.", "Export the model again.")
