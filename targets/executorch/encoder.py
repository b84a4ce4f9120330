"""Encoders: Quantized → ``model.pte`` whose ``forward(ids, mask)`` takes texts of any length up to the context.

Ids and mask are int64 ``[1, S]``, as torch's own exports of encoders have them. Attention, which
decoders leave to a fused operator over their cache, and norms are spelled out in what XNNPACK has: so nearly everything
between the embedding and the pooling is one delegate.

Shape legend: S tokens of the text, N heads, D head dimension, E numbers of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kobako.pipeline import families
from kobako.pipeline.contracts import Exported, ExportOptions, FloatArray, Progress, Quantized
from kobako.pipeline.errors import BadArtifact, UsageError
from kobako.pipeline.heads import Head, head_of, reads_table
from kobako.pipeline.reference.eager import empty_encoder, load_config
from kobako.pipeline.reference.encoder import (
    Encoder,
    capped,
    fold_groups,
    restore_biases,
    shared_biases,
    unfold_groups,
)
from kobako.pipeline.reference.structure import NormFacts, is_norm, norm_facts, normalized
from torch import nn

from .assemble import Lowering, Method, executorch_program, host_module
from .decoder import install, register_operators
from .export import MODEL_FILE, TOKENIZER_FILES, activations, copy_tokenizer, quiet_collector, share_tables
from .fuse import fuse_linears
from .graph import flatten, simplify
from .mapped import map_weights
from .pte import EMBEDDING_ENTRY, HINT, open_pte
from .runtime import load_module
from .segments import SPELLED_ATTENTION, split

ATTENTION = "kobako_executorch_encoder"
LONGEST = "get_max_seq_len"


def export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
    """Write ``model.pte`` and the tokenizer into `out`. Raises UnsupportedModel."""
    copy_tokenizer(quantized.tokenizer_dir, out)
    delegates = write_model(quantized, options.context_tokens, out / MODEL_FILE, progress)
    return Exported(
        target="executorch",
        directory=out,
        files=(MODEL_FILE, *TOKENIZER_FILES),
        activations=activations(quantized.recipe),
        context_tokens=options.context_tokens,
        kind="encoder",
        details={"delegates": delegates, "model_bytes": (out / MODEL_FILE).stat().st_size},
    )


def write_model(quantized: Quantized, context: int, path: Path, progress: Progress) -> int:
    """Trace, lower and write; the number of delegates."""
    family, head = families.get(quantized.model_type), head_of(quantized.directory)
    tied = reads_table(family, head)
    aliases = {tied: family.embedding} if tied else {}
    register_operators()
    with quiet_collector():
        progress(0.0, "tracing the model")
        with registered_attention():
            flat = flatten(traced(build_encoder(quantized, head, family.embedding, tied), context))
        simplify(flat)
        fuse_linears(flat)
        steps = split(flat, SPELLED_ATTENTION)
        lowering = Lowering(flat, steps, context, aliases, {EMBEDDING_ENTRY: family.embedding})
        host = host_module(flat, steps, lowering, lambda part, words: progress(0.3 + 0.4 * part, words))
        progress(0.7, "emitting the program")
        constants = {LONGEST: context, "get_output_size": head.size}
        program = executorch_program({"forward": Method(host, example(), lengths(context), lowering.tables)}, constants)
        with path.open("wb") as file:
            program.write_to_file(file)
    share_tables(path, lowering.keys, aliases)
    return sum(step.segment is not None for step in steps)


def build_encoder(quantized: Quantized, head: Head, embedding: str, tied: str) -> Encoder:
    """The encoder with its linear layers and embedding replaced by what the runtime will compute.

    `tied` is the layer that reads the embedding's table once more, or empty.
    """
    model: Any = empty_encoder(load_config(quantized.directory), head, ATTENTION)
    weights, shared = map_weights(quantized), shared_biases(model)
    for name in weights:
        install(model, name, weights[name], is_embedding=name == embedding)
    restore_biases(model, shared)
    if tied:
        install(model, tied, weights[embedding], is_embedding=False)
    for path, module in list(model.named_modules()):
        if is_norm(module):
            model.set_submodule(path, SpelledNorm(norm_facts(module)))
    return Encoder(model, head, additive=True).eval()


class SpelledNorm(nn.Module):
    """A norm in the formula of its facts; XNNPACK has no layer norm."""

    def __init__(self, facts: NormFacts) -> None:
        super().__init__()
        self.facts = facts
        self.weight, self.bias = _constant(facts.weight), _constant(facts.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., I]`` → ``[..., I]``."""
        return normalized(x, replace(self.facts, weight=self.weight, bias=self.bias))


def _constant(value: torch.Tensor | None) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(value, requires_grad=False)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Arguments to trace with."""
    return torch.zeros((1, 3), dtype=torch.int64), torch.ones((1, 3), dtype=torch.int64)


def lengths(context: int) -> Any:
    """Which dimensions of the arguments vary."""
    length = torch.export.Dim("length", min=2, max=context)
    return ({1: length}, {1: length})


def traced(encoder: Encoder, context: int) -> torch.export.ExportedProgram:
    """One non-strict export, the number of tokens dynamic."""
    with torch.no_grad():
        return torch.export.export(encoder, example(), dynamic_shapes=lengths(context), strict=False)


@contextmanager
def registered_attention() -> Iterator[None]:
    """Within the block, transformers knows our attention function."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS[ATTENTION] = attend
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[ATTENTION]


def attend(
    _module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor,
    scaling: float | None = None, position_bias: torch.Tensor | None = None, **named: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """``[1, N, S, D]`` each, mask ``[1, 1, 1 or S, S]`` and bias that are added to the scores → ``[1, S, N, D]``.

    Keys and values may have fewer heads; those have no bias.
    """
    rows, shown = fold_groups(query, mask, key.shape[1])
    scores = torch.matmul(rows * (scaling or query.shape[-1] ** -0.5), key.transpose(2, 3))
    scores = capped(scores, named.get("softcap")) + shown
    if position_bias is not None:
        scores = scores + position_bias
    return unfold_groups(torch.matmul(torch.softmax(scores, dim=-1), value), query).transpose(1, 2), None


class PteEncoder:
    """Fulfils `protocols.EncoderRuntime`."""

    def __init__(self, exported: Exported) -> None:
        """Raises BadArtifact."""
        path = exported.directory / exported.files[0]
        self.name = f"ExecuTorch {version('executorch')}"
        with open_pte(path) as pte:
            if LONGEST not in pte.method_names():
                raise BadArtifact(f"{path.name} does not tell the longest text it takes.", HINT)
            self.longest = int(pte.constant_method(LONGEST))
        self.module: Any = load_module(path)

    def encode(self, ids: Sequence[int], mask: Sequence[int]) -> FloatArray:
        """The answer ``[E]``. Raises UsageError."""
        if not 1 < len(ids) <= self.longest:
            raise UsageError(
                f"{len(ids)} tokens do not fit an encoder of 2 to {self.longest}.", "Shorten the text, or divide it."
            )
        try:
            answer = self.module.forward([torch.tensor([list(ids)]), torch.tensor([list(mask)])])[0]
        except RuntimeError as error:
            raise BadArtifact(f"ExecuTorch failed to read {len(ids)} tokens: {error}.", HINT) from error
        return np.ascontiguousarray(answer.numpy().copy().reshape(-1))

    def close(self) -> None:
        """Give the module back."""
        self.module = None
