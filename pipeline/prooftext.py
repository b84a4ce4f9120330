"""The text and the prompts every proof uses. No other stage may see them, least of all a calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import UnsupportedModel, UsageError
from .tokens import ShippedTokenizer

PROOF_TEXT = Path(__file__).parent / "texts" / "proof.txt"
PROOF_TOKENS = 512
WINDOW_TOKENS = 512
GREEDY_TOKENS = 16
PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Summarize: The bridge was closed on Monday after engineers found cracks in two of its pillars. "
    "Repairs will take at least three months, and ferries will run every twenty minutes until then.",
    "List three things one needs to bake bread.",
    "Why is the sky blue?",
)


def proof_windows(tokenizer: ShippedTokenizer, context_tokens: int) -> npt.NDArray[np.int32]:
    """At least PROOF_TOKENS tokens of the proof text, cut into windows that fit the context: int32 ``[W, T]``.

    Each window begins as every prompt does: a model that was trained with a first token says nonsense without it.
    """
    if context_tokens < 64:
        raise UsageError(
            f"a context of {context_tokens} tokens is too short to prove anything.", "Use --context 64 or more."
        )
    ids = tokenizer.encode(PROOF_TEXT.read_text(encoding="utf-8"))
    first = tokenizer.prefix
    length = min(WINDOW_TOKENS, context_tokens) - len(first)
    count = -(-PROOF_TOKENS // (length + len(first)))
    if len(ids) < count * length:
        raise UnsupportedModel(
            f"the proof text has only {len(ids)} tokens in this tokenizer.", "Is its vocabulary right?"
        )
    windows = np.asarray(ids[: count * length], dtype=np.int32).reshape(count, length)
    return np.concatenate([np.tile(np.asarray(first, np.int32), (count, 1)), windows], axis=1)


def prompts_for(tokenizer: ShippedTokenizer) -> list[str]:
    """The behaviour prompts, rendered by the chat template when the model has one."""
    if not tokenizer.chat_template:
        return list(PROMPTS)
    return [tokenizer.render([{"role": "user", "content": text}]) for text in PROMPTS]
