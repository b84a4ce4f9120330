"""How decoders in PyTorch read the proof text, and what the original model says to it and to the prompts.

The original is asked once for all recipes, and while they are still made: what it says depends on the model and on
the context only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .codec import read_json, write_json
from .continuation import Prompts, continuations
from .contracts import FloatArray, Progress, Reference
from .logits import LogitsFile, write_logits
from .prooftext import prompts_for, proof_windows
from .tokens import ShippedTokenizer, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READ_TOKENS = 64
IDS, LOGITS, GREEDY = "ids.npy", "logits.npy", "greedy.json"


def read_window(model: PreTrainedModel, window: npt.NDArray[np.int32], cache: Any) -> Iterator[tuple[int, FloatArray]]:
    """Logits ``[N, V]`` of a window, chunk by chunk through `cache`, each with the position of its first token."""
    import torch

    ids = torch.from_numpy(window.astype(np.int64))[None]
    for start in range(0, len(window), READ_TOKENS):
        answer = model(ids[:, start : start + READ_TOKENS], past_key_values=cache, use_cache=True)
        yield start, answer.logits[0].float().numpy()


def read_windows(model: PreTrainedModel, windows: npt.NDArray[np.int32], caches: list[Any]) -> Iterator[FloatArray]:
    """Logits ``[N, V]`` of all windows ``[W, T]`` in order, each through a cache of its own."""
    for window, cache in zip(windows, caches, strict=True):
        yield from (part for _, part in read_window(model, window, cache))


@dataclass(frozen=True)
class Original:
    """What the original says: token ids of the proof text ``[W, T]``, logits ``[W, T, V]``, and its answers."""

    windows: npt.NDArray[np.int32]
    logits: LogitsFile
    greedy: list[list[int]]

    @classmethod
    def open(cls, directory: Path) -> Original:
        """What `ask_original` left in a directory."""
        return cls(np.load(directory / IDS), LogitsFile.open(directory / LOGITS), read_json(directory / GREEDY))


def ask_original(reference: Reference, context_tokens: int, out: Path, progress: Progress) -> None:
    """Let the original model read the proof text and answer the prompts; `out` then holds what `Original` opens."""
    import torch

    from .reference.kvcache import new_cache
    from .reference.model import reference_model
    from .reference.residence import READING

    tokenizer = ShippedTokenizer(reference.tokenizer_dir)
    windows = proof_windows(tokenizer, context_tokens)
    progress(0.05, "loading the original model")
    model = reference_model(reference, budget=READING)
    progress(0.3, "the original model reads the proof text")
    shape = (*windows.shape, model.config.vocab_size)
    prompts = Prompts([tokenizer.encode_prompt(one) for one in prompts_for(tokenizer)], stop_ids(reference.directory))
    with torch.inference_mode():
        write_logits(out / LOGITS, shape, read_windows(model, windows, [new_cache("float") for _ in windows]))
        progress(0.6, "the original model answers the prompts")
        said = continuations(model, prompts, "float")
    np.save(out / IDS, windows)
    write_json(out / GREEDY, [one.ids for one in said])
