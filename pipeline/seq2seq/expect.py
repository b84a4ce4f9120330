"""Reference + Quantized → Expectations of an encoder-decoder, in the files that every model's proof reads.

A window is an answer: what the original writes to a source, token by token, read by every other model as it stands.

Shape legend: W sources, T tokens of an answer, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..codec import write_json
from ..contracts import Activations, Expectations, ExportOptions, FloatArray, Progress, Quantized, Reference
from ..expect import NOISE_RELATIVE, Answers, compared, quality, rounding
from ..logits import Rows, write_logits
from ..metrics import Agreement
from ..prooftext import GREEDY_TOKENS
from ..standard import Kind, kind_of
from ..tokens import ShippedTokenizer, stop_ids
from ..weights import weight_digests
from .facts import BEGIN, LANGUAGES, NEVER, facts_of
from .texts import ANSWER_TOKENS, proof_prompts, proof_sources

NO_KEYS = np.zeros((0, 0, 0, 0), np.float32)
"""Caches are looked into for decoders only."""


def expect(
    reference: Reference, quantized: Quantized, activations: tuple[Activations, ...], options: ExportOptions, out: Path,
    progress: Progress,
) -> Expectations:  # fmt: skip
    """Run original and quantized reference over the sources; write the results into `out`.

    Raises UsageError for a context too short to prove anything.
    """
    from ..reference.eager import quantized_model
    from ..reference.model import reference_model
    from ..reference.residence import READING

    tokenizer, facts, stops = ShippedTokenizer(quantized.tokenizer_dir), facts_of(quantized.directory), set[int]()
    stops.update(stop_ids(quantized.directory))
    prompts = proof_prompts(quantized.model_type, options.context_tokens, tokenizer)
    prompt_ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    split = [source_and_begin(ids, facts, stops) for ids in prompt_ids]
    begin, never = split[0][1], facts[NEVER]
    sources = proof_sources([source for source, _ in split], tokenizer, options.context_tokens)
    progress(0.05, "the original model answers the texts")
    original_model = reference_model(reference, budget=READING)
    rows = [answer(original_model, one, begin, ANSWER_TOKENS, Ends(set(), never))[0] for one in sources]
    scratch, windows = out / "original.npy", np.asarray(rows, np.int32)
    script = Script(sources, windows, split, Ends(stops, never))
    original = answers_of(original_model, "float", replace(script, prompts=[]), scratch)
    del original_model
    perplexity = compared(original.logits, original.logits, windows).perplexity
    model = quantized_model(quantized, budget=READING)
    figures: dict[str, Any] = {
        "model_type": quantized.model_type, "prompts": prompts, "prompt_ids": prompt_ids, "sources": sources,
        "stop_ids": sorted(stops),
        "weight_digests": weight_digests(quantized),
        "original": {"perplexity": perplexity},
    }  # fmt: skip
    floats: Rows | None = None
    kinds: list[Kind] = sorted({"float", *(kind_of(one) for one in activations)})
    for done, kind in enumerate(kinds, start=1):
        progress(0.2 + 0.7 * done / len(kinds), f"the quantized reference ({kind}) answers the texts")
        answers = answers_of(model, kind, script, out / f"logits-{kind}.npy")
        floats = answers.logits if floats is None else floats  # "float" sorts first
        np.save(out / f"keys-{kind}.npy", answers.keys)
        np.save(out / f"first-logits-{kind}.npy", answers.first_logits)
        figures[kind] = {
            **quality(original.logits, perplexity, answers, windows),
            "noise": noise(model, kind, script, answers.logits),
            "float_kl_nats": float(compared(floats, answers.logits, windows).kl_nats.mean()),
        }
    scratch.unlink()
    np.save(out / "ids.npy", windows)
    write_json(out / "expect.json", figures)
    return Expectations(directory=out, activations=activations)


@dataclass(frozen=True)
class Ends:
    """Tokens that end an answer, and tokens that are never said."""

    stops: set[int]
    never: list[int]


def source_and_begin(ids: list[int], facts: dict[str, Any], stops: set[int]) -> tuple[list[int], list[int]]:
    """A prompt's source, and what its answer begins with."""
    if facts[LANGUAGES] and len(ids) > 1 and ids[-2] in stops:
        return ids[:-1], [facts[BEGIN][0], ids[-1]]
    return ids, facts[BEGIN]


@dataclass(frozen=True)
class Script:
    """What every model is given: sources, the answers to them ``[W, T]``, and prompts to answer by itself.

    A prompt is its source, and what the answer begins with.
    """

    sources: list[list[int]]
    windows: npt.NDArray[np.int32]
    prompts: list[tuple[list[int], list[int]]]
    ends: Ends


def answers_of(model: Any, kind: Kind, script: Script, store: Path) -> Answers:
    """What `model` says at each token of the answers, and its own answers to the prompts."""
    import torch

    windows, prompts = script.windows, script.prompts
    with torch.inference_mode(), rounding(model, kind):
        shape = (*windows.shape, model.config.vocab_size)
        logits = write_logits(store, shape, (read(model, *pair) for pair in zip(script.sources, windows, strict=True)))
        said = [answer(model, source, begin, len(begin) + GREEDY_TOKENS, script.ends) for source, begin in prompts]
    greedy = [ids[len(begin) :] for (ids, _, _), (_, begin) in zip(said, prompts, strict=True)]
    first = [rows for _, _, rows in said]
    return Answers(
        logits,
        NO_KEYS,
        greedy,
        [gaps for _, gaps, _ in said],
        np.stack(first) if first else np.zeros((0, shape[-1]), np.float32),
    )


def read(model: Any, source: list[int], window: Any) -> FloatArray:
    """Logits ``[T, V]`` after each token of an answer."""
    import torch

    tokens = torch.from_numpy(np.asarray(window, np.int64))[None]
    found: FloatArray = model(
        input_ids=torch.tensor([source]), decoder_input_ids=tokens, use_cache=False
    ).logits[0].float().numpy()  # fmt: skip
    return found


def answer(
    model: Any, source: list[int], begin: list[int], tokens: int, ends: Ends
) -> tuple[list[int], list[float], FloatArray]:
    """The beginning and greedy ids behind it, `tokens` in all; gaps between the best two logits; the first logits."""
    import torch

    ids, margins = list(begin), list[float]()
    first: FloatArray | None = None
    with torch.inference_mode():
        while len(ids) < tokens and not (margins and ids[-1] in ends.stops):
            last = read(model, source, ids)[-1]
            last[ends.never] = -np.inf
            first = last if first is None else first
            best = np.argsort(-last, kind="stable")[:2]
            margins.append(float(last[best[0]] - last[best[1]]))
            ids.append(int(best[0]))
    assert first is not None
    return ids, margins, first


def noise(model: Any, kind: Kind, script: Script, logits: Rows) -> dict[str, float]:
    """How far the model is from itself when the last bits of its embeddings differ."""
    import torch

    parts = []
    positions = list(range(script.windows.shape[1]))
    with torch.inference_mode(), rounding(model, kind), perturbed(model):
        for number, (source, window) in enumerate(zip(script.sources, script.windows, strict=True)):
            parts.append(Agreement.of(logits[number, positions], read(model, source, window), window[1:]))
    found = Agreement.joined(parts)
    return {"kl_nats": float(found.kl_nats.mean()), "top1": float(found.same.mean()), "margin": found.margin}


@contextmanager
def perturbed(model: Any) -> Iterator[None]:
    """Within the block the embeddings of both sides are changed by NOISE_RELATIVE of themselves."""
    import torch

    drawn = torch.Generator().manual_seed(0)

    def perturb(_module: Any, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * (1.0 + NOISE_RELATIVE * torch.randn(output.shape, generator=drawn))

    parts = (model.get_encoder(), model.get_decoder())
    handles = [part.embed_tokens.register_forward_hook(perturb) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
