"""The texts that every encoder's proof reads: short ones, long ones, and one that fills the artifact's context.

Questions and the passages that answer them show whether quantizing still finds what the original finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..heads import Head
from ..prooftext import PROOF_TEXT
from ..tokens import ShippedTokenizer, Text

PAIRS_TEXT = Path(__file__).parents[1] / "texts" / "pairs.txt"
SHORTEST_CONTEXT = 64
MASKED_WORD = 9


def pairs() -> list[tuple[str, str]]:
    """Questions and their passages."""
    lines = PAIRS_TEXT.read_text(encoding="utf-8").splitlines()
    return [(question, passage) for question, _, passage in (line.partition("\t") for line in lines)]


def proof_texts() -> list[str]:
    """Every question, then every passage in the same order, then the proof text's paragraphs and the whole of it."""
    known = pairs()
    whole = PROOF_TEXT.read_text(encoding="utf-8")
    paragraphs = [part.strip() for part in whole.split("\n\n") if part.strip()]
    return [*(question for question, _ in known), *(passage for _, passage in known), *paragraphs, whole]


def texts_for(head: Head) -> list[Text]:
    """The same, one word of each masked where the model tells what a masked word was.

    Where it answers, questions with their passages, and with longer texts.
    """
    texts = proof_texts()
    if head.task == "answer":
        known = pairs()
        longer = enumerate(texts[2 * len(known) :])
        return [*known, *((known[number % len(known)][0], text) for number, text in longer)]
    return [masked(text, head.mask) for text in texts] if head.task == "fill-mask" else [*texts]


def masked(text: str, mask: str) -> str:
    """A text whose middle word, or the tenth of a long one, is replaced."""
    words = text.split(" ")
    words[min(len(words) // 2, MASKED_WORD)] = mask
    return " ".join(words)


def proof_ids(tokenizer: ShippedTokenizer, texts: Sequence[Text], context_tokens: int) -> list[list[int]]:
    """Token ids of each text, special ones included, cut to the context. Raises UsageError for a context too short."""
    if context_tokens < SHORTEST_CONTEXT:
        raise UsageError(
            f"a context of {context_tokens} tokens is too short to prove anything.",
            f"Use --context {SHORTEST_CONTEXT} or more.",
        )
    return [tokenizer.encode_whole(text, context_tokens) for text in texts]
