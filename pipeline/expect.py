"""Original's logits + Quantized → Expectations: everything an artifact will be held against, computed once in PyTorch.

Shape legend: W windows of the proof text, T tokens each, V vocabulary, L layers, K the first tokens of a window, H, D.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .codec import write_json
from .continuation import Prompts, continuations
from .contracts import Activations, Expectations, ExportOptions, FloatArray, Progress, Quantized
from .logits import Rows, batches, write_logits
from .metrics import Agreement
from .prooftext import prompts_for
from .reading import Original, read_window, read_windows
from .standard import Kind, cache_of, kind_of, rounds_activations
from .tokens import ShippedTokenizer, stop_ids
from .weights import weight_digests

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEY_TOKENS = 32
NOISE_RELATIVE = 1e-6
"""A few times the resolution of float32: what another order of summation changes."""


@dataclass(frozen=True)
class Answers:
    """What one model says: logits ``[W, T, V]``, keys ``[L, K, H, D]``, greedy ids and first logits of each prompt."""

    logits: Rows
    keys: FloatArray
    greedy: list[list[int]]
    margins: list[list[float]]
    first_logits: FloatArray


def expect(
    original: Path,
    quantized: Quantized,
    activations: tuple[Activations, ...],
    options: ExportOptions,
    out: Path,
    progress: Progress,
) -> Expectations:
    """Run the quantized reference over the proof text and the prompts; write the results into `out`.

    `original`: the directory that `reading.ask_original` filled.
    """
    from .reference.eager import quantized_model
    from .reference.residence import READING

    tokenizer = ShippedTokenizer(quantized.tokenizer_dir)
    asked = Original.open(original)
    windows = asked.windows
    prompts = prompts_for(tokenizer)
    prompt_ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    stops = stop_ids(quantized.directory)
    perplexity = compared(asked.logits, asked.logits, windows).perplexity
    figures: dict[str, Any] = {
        "prompts": prompts,
        "prompt_ids": prompt_ids,
        "stop_ids": list(stops),
        "weight_digests": _weight_digests(quantized),
        "original": {"perplexity": perplexity},
    }
    model = quantized_model(quantized, budget=READING)
    as_float: Answers | None = None
    kinds: list[Kind] = sorted({"float", *(kind_of(one, options.kv_cache) for one in activations)})
    for done, kind in enumerate(kinds, start=1):
        progress(0.1 + 0.8 * done / len(kinds), f"the quantized reference ({kind}) reads the proof text")
        said = Prompts(prompt_ids, stops, as_float.greedy if as_float else asked.greedy)  # "float" sorts first
        answers = answers_of(model, kind, windows, said, out / f"logits-{kind}.npy")
        np.save(out / f"keys-{kind}.npy", answers.keys)
        np.save(out / f"first-logits-{kind}.npy", answers.first_logits)
        as_float = as_float or answers
        figures[kind] = {
            **quality(asked.logits, perplexity, answers, windows),
            "noise": _noise(model, kind, windows, answers.logits),
            "float_kl_nats": float(compared(as_float.logits, answers.logits, windows).kl_nats.mean()),
        }
    np.save(out / "ids.npy", windows)
    write_json(out / "expect.json", figures)
    return Expectations(directory=out, activations=activations, kv_cache=options.kv_cache)


def _noise(model: PreTrainedModel, kind: Kind, windows: npt.NDArray[np.int32], logits: Rows) -> Mapping[str, float]:
    """How far the model is from itself when the last bits of its embeddings differ.

    With float activations and a float cache this is nearly nothing. Rounding to int8 amplifies last-bit differences
    layer by layer: no two programs that round can agree better than this.
    """
    import torch

    from .reference.kvcache import new_cache

    parts = []
    for number, window in enumerate(windows):
        generator = torch.Generator().manual_seed(0)

        def perturb(
            _module: torch.nn.Module, _inputs: object, output: torch.Tensor, drawn: torch.Generator = generator
        ) -> torch.Tensor:
            return output * (1.0 + NOISE_RELATIVE * torch.randn(output.shape, generator=drawn))

        handle = model.get_input_embeddings().register_forward_hook(perturb)
        try:
            with torch.inference_mode(), rounding(model, kind):
                for start, rows in read_window(model, window, new_cache(cache_of(kind))):
                    positions = list(range(start, start + len(rows)))
                    parts.append(
                        Agreement.of(logits[number, positions], rows, window[start + 1 : start + 1 + len(rows)])
                    )
        finally:
            handle.remove()
    found = Agreement.joined(parts)
    return {"kl_nats": float(found.kl_nats.mean()), "top1": float(found.same.mean()), "margin": found.margin}


def rounding(model: PreTrainedModel, kind: Kind) -> AbstractContextManager[None]:
    """Within it, activations are rounded as `kind` tells."""
    from .reference.eager import dynamic_int8_activations

    return dynamic_int8_activations(model) if rounds_activations(kind) else nullcontext()


def _weight_digests(quantized: Quantized) -> dict[str, str]:
    """SHA-256 of every matrix the recipe stores, by parameter name; of a table's rows as they are."""
    from .reference.eager import open_table_of

    digests = weight_digests(quantized)
    if (table := open_table_of(quantized)) is not None:
        digests[table.layout.parameter] = table.digest
    return digests


def quality(original: Rows, perplexity: float, answers: Answers, windows: npt.NDArray[np.int32]) -> Mapping[str, Any]:
    """What the recipe costs, and what the quantized reference says to the prompts; `perplexity` of the original."""
    found = compared(original, answers.logits, windows)
    return {
        "greedy": answers.greedy,
        "margins": answers.margins,
        "kl_nats": float(found.kl_nats.mean()),
        "kl_nats_per_token": [round(float(value), 6) for value in found.kl_nats],
        "top1": float(found.same.mean()),
        "perplexity": found.perplexity,
        "perplexity_ratio": found.perplexity / perplexity,
    }


def compared(expected: Rows, actual: Rows, windows: npt.NDArray[np.int32]) -> Agreement:
    """Two models at every position of the windows, a few rows in memory at a time."""
    parts = []
    for number, window in enumerate(windows):
        for positions in batches(len(window)):
            following = window[positions[0] + 1 : positions[-1] + 2]
            parts.append(Agreement.of(expected[number, positions], actual[number, positions], following))
    return Agreement.joined(parts)


def answers_of(
    model: PreTrainedModel,
    kind: Kind,
    windows: npt.NDArray[np.int32],
    prompts: Prompts,
    store: Path | None = None,
) -> Answers:
    """What `model` says to the windows ``[W, T]`` and the prompts, activations and cache rounded as `kind` tells.

    Logits are written to `store` as they come, or kept in memory when there is none.
    """
    import torch

    from .reference.kvcache import new_cache

    kept = cache_of(kind)
    caches = [new_cache(kept) for _ in windows]
    with torch.inference_mode(), rounding(model, kind):
        shape = (*windows.shape, model.config.vocab_size)
        rows = read_windows(model, windows, caches)
        logits: Rows = write_logits(store, shape, rows) if store else np.concatenate(list(rows)).reshape(shape)
        keys = _keys(caches[0])
        said = continuations(model, prompts, kept)
    first_logits = np.stack([one.first_logits for one in said]) if said else np.empty((0, shape[-1]), np.float32)
    return Answers(logits, keys, [one.ids for one in said], [one.margins for one in said], first_logits)


def _keys(cache: Any) -> FloatArray:
    """Key caches ``[L, K, H, D]`` of the first tokens; Hugging Face keeps ``[B, H, T, D]`` per layer.

    Where layers differ in H or D, the smaller ones are filled up with zeros.
    """
    found = [layer.keys[0, :, :KEY_TOKENS].transpose(0, 1).float().numpy() for layer in cache.layers]
    _, heads, depth = np.max([keys.shape for keys in found], axis=0)
    return np.stack([np.pad(k, ((0, 0), (0, heads - k.shape[1]), (0, depth - k.shape[2]))) for k in found])
