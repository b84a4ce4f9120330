"""Encoder-decoders: Quantized → ``model.tflite`` with the signatures ``encode_T`` and ``decode`` over the same weights.

Caches are inputs and outputs, as in a decoder's signatures. There is no ``.litertlm``: its engine has no encoder.

Shape legend: T tokens of the source = S slots of the answer's cache = the context, N heads, D head dimension, L layers.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kobako.pipeline import families
from kobako.pipeline.contracts import Exported, ExportOptions, FloatArray, Progress, Quantized
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.reference.structure import fitting_length
from kobako.pipeline.seq2seq.facts import facts_of

from . import MODEL_FILE, TARGET, opaque, trace
from .encoder import ATTENTION, IDS, MASK, SHARE_TRACING, TOKENIZER_FILES, attention
from .flatbuffer import load_model, write_model
from .modelfile import open_model, signatures
from .rewrite import rewrite
from .runtime import THREADS, load_compiled
from .stored import stored_parameters

ENCODE, DECODE = "encode", "decode"
TOKEN, POSITION, LOGITS = "token", "position", "logits"


def export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
    """Write ``model.tflite`` and the tokenizer into `out`. Raises UnsupportedRecipe."""
    steps = traceable(quantized, options.context_tokens)
    model = load_model(trace.lowered(steps, lambda part, text: progress(part * SHARE_TRACING, text)))
    progress(SHARE_TRACING, "writing weights")
    rewrite(model, stored_parameters(quantized.directory))
    write_model(model, out / MODEL_FILE)
    for name in TOKENIZER_FILES:
        shutil.copyfile(quantized.tokenizer_dir / name, out / name)
    progress(1.0, "done")
    return Exported(
        target=TARGET.name,
        directory=out,
        files=(MODEL_FILE, *TOKENIZER_FILES),
        activations=TARGET.activations(quantized.recipe),
        context_tokens=options.context_tokens,
        kind="seq2seq",
        details={"signatures": [step.name for step in steps], **facts_of(quantized.directory)},
    )


def traceable(quantized: Quantized, context: int) -> list[trace.Step]:
    """All signatures: modules, and sample arguments by name."""
    import torch
    from kobako.pipeline.reference.eager import empty_seq2seq, load_config
    from kobako.pipeline.reference.positions import refit
    from kobako.pipeline.reference.seq2seq import Continues, Reads, state_names, state_shape, used_by
    from kobako.pipeline.reference.structure import encoder_lengths
    from transformers import AttentionInterface

    family = families.get(quantized.model_type)
    AttentionInterface.register(ATTENTION, attention)
    model = empty_seq2seq(load_config(quantized.directory), ATTENTION)
    refit(model, context, torch.int32)
    layers, shape = len(model.get_submodule(family.layers)), state_shape(model, context)
    parameters = dict(model.named_parameters())

    def weights(*, reading: bool) -> dict[str, Any]:
        return {name: torch.empty(parameters[name].shape) for name in used_by(parameters, family, reading=reading)}

    def source(length: int) -> dict[str, Any]:
        return {name: torch.ones(1, length, dtype=torch.int32) for name in (IDS, MASK)}

    numbers = {TOKEN: torch.zeros(1, 1, dtype=torch.int32), POSITION: torch.zeros(1, dtype=torch.int32)}
    cross, own = (state_names(layers, kind) for kind in ("cross", "self"))
    caches = {name: torch.empty(shape) for name in (*cross, *own)}
    reads, continues = _step_classes()
    read = reads(Reads(model, family, context), cross).eval()
    return [
        *(
            trace.Step(f"{ENCODE}_{length}", read, {**source(length), "weights": weights(reading=True)})
            for length in encoder_lengths(context)
        ),
        trace.Step(
            DECODE,
            continues(Continues(model, family, write), own).eval(),
            {**numbers, MASK: source(context)[MASK], "caches": caches, "weights": weights(reading=False)},
        ),
    ]


def write(cache: Any, update: Any, position: Any) -> Any:
    """A `reference.seq2seq.Write`: one slice of the cache replaced."""
    import torch

    zero = torch.zeros(1, dtype=torch.int32)
    return opaque.operators()[opaque.WRITE](cache, update, torch.cat([zero, zero, position, zero]))


@functools.cache
def _step_classes() -> tuple[type, type]:
    import torch

    class Step(torch.nn.Module):
        """A step as one function of its arguments and weights."""

        def __init__(self, step: Any, names: list[str]) -> None:
            super().__init__()
            self.hidden_from_parameters, self.names = [step], names

        def called(self, weights: Mapping[str, Any], *arguments: Any) -> Any:
            named = {f"model.{name}": value for name, value in weights.items()}
            with opaque.catching_weights():
                return torch.func.functional_call(self.hidden_from_parameters[0], named, arguments)

    class ReadStep(Step):
        def forward(self, ids: Any, mask: Any, weights: Any) -> dict[str, Any]:
            return dict(zip(self.names, self.called(weights, ids, mask), strict=True))

    class ContinueStep(Step):
        def forward(self, token: Any, position: Any, mask: Any, caches: Any, weights: Any) -> dict[str, Any]:
            logits, *states = self.called(weights, token, position, mask, *caches.values())
            return {LOGITS: logits, **dict(zip(self.names, states, strict=True))}

    return ReadStep, ContinueStep


class LiteRTSeq2Seq:
    """Fulfils `protocols.Seq2SeqSteps`: ``model.tflite`` in LiteRT's CompiledModel with XNNPACK."""

    def __init__(self, path: Path, threads: int = THREADS) -> None:
        """Raises BadArtifact for files it cannot run."""
        from importlib.metadata import version

        self.name = f"LiteRT {version('ai-edge-litert')}"
        found = signatures(open_model(path))
        try:
            self._encoders = {
                int(one["inputs"][IDS]["shape"][1]): name for name, one in found.items() if name.startswith(ENCODE)
            }
            self._context = int(found[DECODE]["inputs"][MASK]["shape"][1])
            self._vocabulary = int(found[DECODE]["outputs"][LOGITS]["shape"][-1])
            shapes = {name: tuple(one["shape"]) for name, one in found[DECODE]["inputs"].items()}
            cross = [name for name in found[self._encoders[self._context]]["outputs"] if name in shapes]
        except (KeyError, IndexError) as error:
            raise BadArtifact(f"{path.name} is no encoder-decoder: it has {sorted(found)}.", "Build again.") from error
        self._model = model = load_compiled(path, threads)
        own = [name for name in shapes if name not in (TOKEN, POSITION, MASK, *cross)]
        self._numbers = {name: model.create_input_buffer_by_name(DECODE, name) for name in (TOKEN, POSITION, MASK)}
        self._cross = {name: model.create_input_buffer_by_name(DECODE, name) for name in cross}
        # two sets that change places at every step: no cache ever passes through numpy
        self._caches = {name: model.create_input_buffer_by_name(DECODE, name) for name in own}
        self._next = {name: model.create_output_buffer_by_name(DECODE, name) for name in own}
        self._logits = model.create_output_buffer_by_name(DECODE, LOGITS)
        for name, buffer in self._caches.items():
            buffer.write(np.zeros(shapes[name], np.float32))

    def read(self, ids: Sequence[int], mask: Sequence[int]) -> None:
        """Run the shortest encoder that the source fits, padded; its outputs are ``decode``'s inputs."""
        length = fitting_length(self._encoders, len(ids), self._context)
        signature = self._encoders[length]
        inputs = {name: self._model.create_input_buffer_by_name(signature, name) for name in (IDS, MASK)}
        for buffer, values, size in (
            (inputs[IDS], ids, length), (inputs[MASK], mask, length), (self._numbers[MASK], mask, self._context),
        ):  # fmt: skip
            row = np.zeros((1, size), np.int32)
            row[0, : len(values)] = values
            buffer.write(row)
        self._model.run_by_name(signature, inputs, self._cross)

    def step(self, token: int, position: int) -> FloatArray:
        """Run ``decode``: logits ``[V]``."""
        self._numbers[TOKEN].write(np.asarray([[token]], np.int32))
        self._numbers[POSITION].write(np.asarray([position], np.int32))
        inputs = {**self._numbers, **self._cross, **self._caches}
        self._model.run_by_name(DECODE, inputs, {LOGITS: self._logits, **self._next})
        self._caches, self._next = self._next, self._caches
        return np.asarray(self._logits.read(self._vocabulary, np.float32))

    def close(self) -> None:
        """Give everything back."""
        self._numbers, self._cross, self._caches, self._next, self._logits = {}, {}, {}, {}, None
        if self._model is not None:
            self._model.close()
        self._model = None
