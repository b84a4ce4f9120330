"""Encoder-decoders: Quantized → ``model.pte`` with the methods ``encode`` and ``decode`` over the same weights.

``encode(ids, mask)``, int64 ``[1, T]`` of any length, gives keys and values of the source for every decoder layer;
``decode(token [1, 1], position [1], mask, those, caches)`` the logits and the caches with the new token in them.

Shape legend: T tokens of the source, S slots of the answer's cache, N heads, D head dimension, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kobako.pipeline import families
from kobako.pipeline.contracts import Exported, ExportOptions, FloatArray, Progress, Quantized
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.reference.eager import empty_seq2seq, load_config
from kobako.pipeline.reference.positions import refit
from kobako.pipeline.reference.seq2seq import Continues, Reads, state_shape, tables_read
from kobako.pipeline.reference.structure import is_norm, norm_facts
from kobako.pipeline.seq2seq.facts import facts_of
from torch import nn

from .assemble import Lowering, Method, executorch_program, host_module
from .decoder import install, register_operators
from .encoder import ATTENTION, LONGEST, SpelledNorm, lengths, registered_attention
from .encoder import example as source_example
from .export import MODEL_FILE, TOKENIZER_FILES, activations, copy_tokenizer, quiet_collector, share_tables
from .fuse import fuse_linears
from .graph import flatten, simplify
from .mapped import map_weights
from .pte import DECODE, EMBEDDING_ENTRY, ENCODE, HINT, open_pte
from .runtime import load_module
from .segments import SPELLED_ATTENTION, split

CACHES = "get_n_layers"
HEADS = "get_n_heads"
HEAD_DIM = "get_head_dim"


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
        kind="seq2seq",
        details={
            "methods": [ENCODE, DECODE], "delegates": delegates, "model_bytes": (out / MODEL_FILE).stat().st_size,
            **facts_of(quantized.directory),
        },
    )  # fmt: skip


def write_model(quantized: Quantized, context: int, path: Path, progress: Progress) -> int:
    """Trace, lower and write both methods; the number of delegates."""
    family = families.get(quantized.model_type)
    config = load_config(quantized.directory)
    aliases = {family.head: family.embedding} if config.tie_word_embeddings else {}
    register_operators()
    methods: dict[str, Method] = {}
    lowering: Lowering | None = None
    delegates = 0
    with quiet_collector():
        with registered_attention():
            model = build(quantized, context)
        for number, (name, step, example, dynamic) in enumerate(traceable(model, family, context)):
            progress(0.45 * number, f"tracing {name}")
            with torch.no_grad(), registered_attention():
                named = dynamic if name == ENCODE else (*dynamic[:3], dynamic[3:])  # the last argument takes the rest
                flat = flatten(torch.export.export(step, example, dynamic_shapes=named, strict=False))
            simplify(flat)
            fuse_linears(flat)
            steps = split(flat, SPELLED_ATTENTION)
            told = {EMBEDDING_ENTRY: " ".join(family.tables)} if name == DECODE else {}
            lowering = Lowering(flat, steps, context, aliases, told, lowering)
            host = host_module(flat, steps, lowering, part_of(progress, 0.45 * number + 0.15, 0.25))
            methods[name] = Method(host, example, dynamic, lowering.tables)
            delegates += sum(step.segment is not None for step in steps)
        progress(0.9, "emitting the program")
        _, heads, _, depth = state_shape(model, context)
        constants = {LONGEST: context, CACHES: len(model.get_submodule(family.layers)), HEADS: heads, HEAD_DIM: depth}
        program = executorch_program(methods, constants)
        with path.open("wb") as file:
            program.write_to_file(file)
    assert lowering is not None
    share_tables(path, lowering.keys, aliases)
    return delegates


def part_of(progress: Progress, begin: float, share: float) -> Progress:
    """Progress of a part of the whole."""
    return lambda fraction, words: progress(begin + share * fraction, words)


def traceable(model: Any, family: families.Family, context: int) -> list[tuple[str, nn.Module, Any, Any]]:
    """Name, module, example arguments and varying dimensions of both methods."""
    ids, mask = source_example()
    layers = len(model.get_submodule(family.layers))
    shape = state_shape(model, context)
    cross = [torch.zeros(1, shape[1], ids.shape[1], shape[3]) for _ in range(2 * layers)]
    own = [torch.zeros(shape) for _ in range(2 * layers)]
    length = torch.export.Dim("length", min=2, max=context)
    decoding = (torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), mask, *cross, *own)
    varying = ({}, {}, {1: length}, *({2: length} for _ in cross), *({} for _ in own))
    return [
        (ENCODE, Reads(model, family), (ids, mask), lengths(context)),
        (DECODE, Continues(model, family), decoding, varying),
    ]


def build(quantized: Quantized, context: int) -> Any:
    """The model with its linear layers, embeddings, norms and positions replaced by what the runtime will compute."""
    family = families.get(quantized.model_type)
    model = empty_seq2seq(load_config(quantized.directory), ATTENTION)
    weights, tables = map_weights(quantized), tables_read(model)
    for name in weights:
        if name not in family.tables:
            install(model, name, weights[name], is_embedding=False)
    refit(model, context, torch.int64)
    for path, name in tables.items():
        install(model, f"{path}.weight", weights[name], is_embedding=True)
    if model.config.tie_word_embeddings:
        install(model, family.head, weights[family.embedding], is_embedding=False)
    for path, module in list(model.named_modules()):
        if is_norm(module):
            model.set_submodule(path, SpelledNorm(norm_facts(module)))
    return model


class PteSeq2Seq:
    """Fulfils `protocols.Seq2SeqSteps`."""

    def __init__(self, exported: Exported) -> None:
        """Raises BadArtifact."""
        path = exported.directory / exported.files[0]
        self.name = f"ExecuTorch {version('executorch')}"
        self.module: Any = load_module(path, DECODE)
        with open_pte(path) as pte:
            if missing := [one for one in (ENCODE, CACHES, HEADS, HEAD_DIM, LONGEST) if one not in pte.method_names()]:
                raise BadArtifact(f"{path.name} has no method {missing[0]!r}.", HINT)
            layers, heads, depth, slots = (int(pte.constant_method(n)) for n in (CACHES, HEADS, HEAD_DIM, LONGEST))
        self._caches = [torch.zeros(1, heads, slots, depth) for _ in range(2 * layers)]
        self._source: list[torch.Tensor] = []

    def read(self, ids: Sequence[int], mask: Sequence[int]) -> None:
        """Run ``encode``; one token is given with padding behind it, since the method takes two or more."""
        padding = [0] * (2 - len(ids))
        tokens, seen = torch.tensor([[*ids, *padding]]), torch.tensor([[*mask, *padding]])
        self._source = [seen, *self._run(ENCODE, [tokens, seen])]

    def step(self, token: int, position: int) -> FloatArray:
        """Run ``decode``: logits ``[V]``."""
        arguments = [torch.tensor([[token]]), torch.tensor([position]), *self._source, *self._caches]
        logits, *self._caches = self._run(DECODE, arguments)
        return np.ascontiguousarray(logits.numpy().reshape(-1))

    def _run(self, method: str, arguments: list[torch.Tensor]) -> list[torch.Tensor]:
        try:
            outputs = self.module.run_method(method, arguments)
        except RuntimeError as error:
            raise BadArtifact(f"ExecuTorch failed to run {method}: {error}.", HINT) from error
        return [one.clone() for one in outputs]  # the next call writes where they lie

    def close(self) -> None:
        """Give the module back."""
        self.module = None
