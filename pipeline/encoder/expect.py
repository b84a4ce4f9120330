"""Reference + Quantized → Expectations of an encoder: its answers to the proof's texts, computed once in PyTorch.

Shape legend: N texts, T tokens, E numbers of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codec import to_json
from ..contracts import Activations, Expectations, ExportOptions, FloatArray, Progress, Quantized, Reference
from ..heads import Head, head_of
from ..standard import Kind, kind_of
from ..tokens import ShippedTokenizer
from ..weights import weight_digests
from .compare import Comparison, correlation, found, similarities
from .spans import settled
from .standard import write_answers, write_facts
from .texts import pairs, proof_ids, texts_for

if TYPE_CHECKING:
    import torch

NOISE_RELATIVE = 1e-6
"""A few times the resolution of float32: what another order of summation changes."""


def expect(
    reference: Reference,
    quantized: Quantized,
    activations: tuple[Activations, ...],
    options: ExportOptions,
    out: Path,
    progress: Progress,
) -> Expectations:
    """Run original and quantized reference over the texts; write golden files into `out`.

    Raises UsageError for a context too short to prove anything.
    """
    from ..reference.eager import quantized_model
    from ..reference.model import reference_model
    from ..reference.residence import READING

    head = head_of(quantized.directory)
    texts = texts_for(head)
    ids = proof_ids(ShippedTokenizer(quantized.tokenizer_dir), texts, options.context_tokens)
    progress(0.05, "the original model reads the texts")
    longest = options.context_tokens
    original = answers_of(reference_model(reference, budget=READING), head, "float", ids, longest)
    model = quantized_model(quantized, budget=READING)
    facts: dict[str, Any] = {
        "head": to_json(head), "texts": texts, "pairs": len(pairs()), "weight_digests": weight_digests(quantized),
        "original": retrieval(original, head),
    }  # fmt: skip
    padded, lengths = rectangle(ids)
    kinds: list[Kind] = sorted({"float", *(kind_of(one) for one in activations)})
    floats: FloatArray | None = None
    for done, kind in enumerate(kinds, start=1):
        progress(0.2 + 0.7 * done / len(kinds), f"the quantized reference ({kind}) reads the texts")
        answers = answers_of(model, head, kind, ids, longest)
        floats = answers if floats is None else floats  # "float" sorts first
        write_answers(out, kind, padded, lengths, answers)
        noisy = answers_of(model, head, kind, ids, longest, noise=NOISE_RELATIVE)
        facts[kind] = {
            **quality(original, answers, head),
            "noise": Comparison.of(answers, noisy, head).figures(),
            "float_distance": Comparison.of(floats, answers, head).distance,
        }
    write_facts(out, facts)
    return Expectations(directory=out, activations=activations)


def answers_of(
    model: Any, head: Head, kind: Kind, ids: list[list[int]], context_tokens: int, noise: float = 0.0
) -> FloatArray:
    """Answers ``[N, E]`` of a model to texts of at most `context_tokens`, activations rounded as `kind` tells.

    With `noise` the token embeddings are changed by so much of themselves: how far a model is from itself when last
    bits differ, which rounding amplifies.
    """
    from contextlib import nullcontext

    import torch

    from ..reference.eager import dynamic_int8_activations
    from ..reference.encoder import Encoder

    generator = torch.Generator().manual_seed(0)

    def perturb(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * (1.0 + noise * torch.randn(output.shape, generator=generator))

    encoder = Encoder(model, head).eval()
    table = next(module for module in model.modules() if isinstance(module, torch.nn.Embedding))
    handle = table.register_forward_hook(perturb) if noise else None
    try:
        with torch.inference_mode(), dynamic_int8_activations(model) if kind == "int8-dynamic" else nullcontext():
            rows = [encoder(torch.tensor([one]), torch.ones(1, len(one), dtype=torch.int64))[0] for one in ids]
    finally:
        if handle:
            handle.remove()
    return np.stack(
        [settled(row.float().numpy(), len(one), context_tokens, head) for row, one in zip(rows, ids, strict=True)]
    )


def quality(original: FloatArray, answers: FloatArray, head: Head) -> Mapping[str, Any]:
    """What the recipe costs: distance from the original, and how the two rank questions and passages."""
    figures = {f"quality_{key}": value for key, value in Comparison.of(original, answers, head).figures().items()}
    if head.chooses:
        return figures
    count = len(pairs())
    near = [similarities(rows[:count], rows[count : 2 * count]) for rows in (original, answers)]
    return {**figures, **retrieval(answers, head), "similarity_correlation": correlation(near[0], near[1])}


def retrieval(answers: FloatArray, head: Head) -> Mapping[str, Any]:
    """How many questions find their own passage; nothing for a model that chooses labels or tokens."""
    if head.chooses:
        return {}
    count = len(pairs())
    return {"found": found(answers[:count], answers[count : 2 * count]), "questions": count}


def rectangle(ids: list[list[int]]) -> tuple[Any, Any]:
    """Ids as one int32 array ``[N, T]``, zeros behind each text, and the texts' lengths ``[N]``."""
    lengths = np.asarray([len(one) for one in ids], np.int32)
    padded = np.zeros((len(ids), int(lengths.max())), np.int32)
    for row, one in zip(padded, ids, strict=True):
        row[: len(one)] = one
    return padded, lengths
