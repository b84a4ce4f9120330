"""Encoders: Quantized → ``model.tflite``, one signature for each length of text, all over the same weights.

Shape legend: T tokens of a signature, N heads, D head dimension, E numbers of the answer.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kobako.pipeline import families
from kobako.pipeline.contracts import Exported, ExportOptions, FloatArray, Progress, Quantized
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.heads import Head, head_of
from kobako.pipeline.reference.layers import plan, shortened
from kobako.pipeline.reference.structure import encoder_lengths, fitting_length

from . import MODEL_FILE, TARGET, opaque, trace
from .flatbuffer import load_model, write_model
from .modelfile import open_model, signatures
from .replicate import replicate
from .rewrite import rewrite
from .runtime import THREADS, load_compiled
from .stored import stored_parameters

if TYPE_CHECKING:
    import torch
    from torch import nn

ATTENTION = "kobako_litert_encoder"
PREFIX = "encode_"
IDS, MASK, ANSWER = "ids", "mask", "answer"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
SHARE_TRACING = 0.8


def export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
    """Write ``model.tflite`` and the tokenizer into `out`. Raises UnsupportedRecipe."""
    head, lengths = head_of(quantized.directory), encoder_lengths(options.context_tokens)
    model = graph(quantized, head, lengths, lambda part, text: progress(part * SHARE_TRACING, text))
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
        kind="encoder",
        details={"signatures": [f"{PREFIX}{length}" for length in lengths]},
    )


def graph(quantized: Quantized, head: Head, lengths: tuple[int, ...], progress: Progress) -> Any:
    """The traced graph of the whole model, from a few of its layers where others are like them."""
    from kobako.pipeline.reference.eager import load_config

    config, layers = load_config(quantized.directory), families.get(quantized.model_type).layers
    if (part := plan(config)) is not None:
        model = load_model(_trace(shortened(config, part.traced), head, layers, lengths, progress))
        if replicate(model, part, layers):
            return model
    return load_model(_trace(config, head, layers, lengths, progress))


def _trace(config: Any, head: Head, layers: str, lengths: tuple[int, ...], progress: Progress) -> bytes:
    from kobako.pipeline.reference.eager import empty_encoder
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attention)
    model = empty_encoder(config, head, ATTENTION)
    trace.mark_layers(model.get_submodule(layers))
    step = _step_class()(model, head).eval()
    return trace.lowered([trace.Step(f"{PREFIX}{n}", step, _sample(model, n)) for n in lengths], progress)


def attention(
    _module: nn.Module,
    query: torch.Tensor,  # [1, N, T, D]
    key: torch.Tensor,  # [1, N or fewer, T, D]
    value: torch.Tensor,  # as key
    mask: torch.Tensor,  # [1, 1, 1 or T, T], added
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,  # [1, N, T, T], added
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """Every token looks at every token that the mask shows."""
    import torch
    from kobako.pipeline.reference.encoder import capped, fold_groups, unfold_groups

    matmul = opaque.operators()[opaque.MATMUL]
    rows, mask = fold_groups(query, mask, key.shape[1])
    scores = matmul(rows * (scaling or query.shape[-1] ** -0.5), key)
    scores = capped(scores, named.get("softcap")) + mask
    if position_bias is not None:
        scores = scores + position_bias
    mixed = matmul(torch.softmax(scores, dim=-1), value.transpose(2, 3))
    return unfold_groups(mixed, query).transpose(1, 2), None


@functools.cache
def _step_class() -> type:
    import torch
    from kobako.pipeline.reference.encoder import Encoder

    class EncoderStep(torch.nn.Module):
        """The encoder as one function of ids, mask and weights."""

        def __init__(self, model: nn.Module, head: Head) -> None:
            super().__init__()
            self.hidden_from_parameters = [Encoder(model, head, additive=True)]

        def forward(self, ids: Any, mask: Any, weights: Any) -> dict[str, Any]:
            named = {f"model.{name}": value for name, value in weights.items()}
            with opaque.catching_weights():
                answer = torch.func.functional_call(self.hidden_from_parameters[0], named, (ids, mask))
            return {ANSWER: answer}

    return EncoderStep


def _sample(model: nn.Module, tokens: int) -> dict[str, Any]:
    import torch

    return {
        IDS: torch.zeros(1, tokens, dtype=torch.int32),
        MASK: torch.ones(1, tokens, dtype=torch.int32),
        "weights": {name: torch.empty(value.shape) for name, value in model.named_parameters()},
    }


class LiteRTEncoder:
    """Fulfils `protocols.EncoderRuntime`: ``model.tflite`` in LiteRT's CompiledModel with XNNPACK."""

    def __init__(self, path: Path, threads: int = THREADS) -> None:
        """Raises BadArtifact for files it cannot run."""
        from importlib.metadata import version

        self.name = f"LiteRT {version('ai-edge-litert')}"
        found = signatures(open_model(path))
        try:
            self._lengths = {int(one["inputs"][IDS]["shape"][1]): name for name, one in found.items()}
            self._sizes = {name: int(one["outputs"][ANSWER]["shape"][-1]) for name, one in found.items()}
        except (KeyError, IndexError) as error:
            raise BadArtifact(
                f"{path.name} has no signature of an encoder: {sorted(found)}.", "Build again."
            ) from error
        self._model = load_compiled(path, threads)

    def encode(self, ids: Sequence[int], mask: Sequence[int]) -> FloatArray:
        """The answer ``[E]``, from the shortest signature that the tokens fit. Raises UsageError."""
        length = fitting_length(self._lengths, len(ids), max(self._lengths))
        signature = self._lengths[length]
        inputs = {name: self._model.create_input_buffer_by_name(signature, name) for name in (IDS, MASK)}
        for name, values in ((IDS, ids), (MASK, mask)):
            row = np.zeros((1, length), np.int32)
            row[0, : len(values)] = values
            inputs[name].write(row)
        answer = self._model.create_output_buffer_by_name(signature, ANSWER)
        self._model.run_by_name(signature, inputs, {ANSWER: answer})
        return np.asarray(answer.read(self._sizes[signature], np.float32))

    def close(self) -> None:
        """Give everything back."""
        if self._model is not None:
            self._model.close()
        self._model = None
