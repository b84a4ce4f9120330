"""The text a model is calibrated on: kobako's own, or the user's.

Calibration sees what activations are like; it must not see the text of the proof, and text in a language that the
tokenizer only spells byte by byte says nothing about activations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from .errors import IntegrityError, UsageError
from .prooftext import PROOF_TEXT
from .tokens import ShippedTokenizer

T = TypeVar("T")
CALIBRATION_TEXT = Path(__file__).parent / "texts" / "calibration.txt"
LARGEST_BYTES = 16 * 2**20
WINDOW_TOKENS, MOST_WINDOWS = 512, 16
FEWEST_TOKENS = 128
FEWEST_BYTES_PER_TOKEN = 1.2
"""Below this a tokenizer spells bytes: SmolLM2 reads English at 4.6 bytes per token, Gujarati at 1.0."""


def read_text(path: Path) -> str:
    """The user's calibration text. Raises UsageError for a file that cannot be one."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise UsageError(
                f"{path} is too large to calibrate on.", f"A few pages do; {LARGEST_BYTES >> 20} MB at most."
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Name a text file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).", "Convert it.") from error
    if not text.strip():
        raise UsageError(f"{path} holds no text.", "Write a few pages into it of what the model will read.")
    proof = [line.strip() for line in PROOF_TEXT.read_text(encoding="utf-8").splitlines() if len(line.strip()) > 40]
    if any(line in text for line in proof):
        raise UsageError(f"{path} holds the proof's own text.", "A model must not be examined on what it learned.")
    return text


def digest(text: str) -> str:
    """SHA-256 of a calibration text, as recipes name it."""
    return hashlib.sha256(text.encode()).hexdigest()


def calibration_ids(tokenizer: ShippedTokenizer, own: Path | None = None, sha256: str | None = None) -> list[list[int]]:
    """Token ids of the calibration text: in windows and, where there is a chat template, as a chat for each paragraph.

    Windows, because memory grows with the longest sequence. Special tokens give rise to outliers of their own, so they
    must be among what the model reads. Of a user's text
    (`own`, whose digest must be `sha256`) at most MOST_WINDOWS windows are read, evenly spread, and as many chats.
    Raises UsageError for a text that the tokenizer has no words for, IntegrityError when it changed since.
    """
    text = CALIBRATION_TEXT.read_text(encoding="utf-8") if own is None else _unchanged(own, sha256)
    ids = tokenizer.encode(text)
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    starts: Sequence[int] = range(0, len(ids), WINDOW_TOKENS)
    if own is not None:
        _check_fit(own, text, ids)
        starts = _spread(range(0, len(ids) - FEWEST_TOKENS + 1, WINDOW_TOKENS))
        paragraphs = _spread(paragraphs)
    windows = [tokenizer.prefix + ids[start : start + WINDOW_TOKENS] for start in starts]
    return [*windows, *(chat[:WINDOW_TOKENS] for chat in _chats(tokenizer, paragraphs))]


def calibration_pieces(
    tokenizer: ShippedTokenizer, longest: int, own: Path | None = None, sha256: str | None = None
) -> list[list[int]]:
    """The same for an encoder, which reads one text at a time: a paragraph each, at most `longest` tokens of it.

    Raises what `calibration_ids` raises.
    """
    text = CALIBRATION_TEXT.read_text(encoding="utf-8") if own is None else _unchanged(own, sha256)
    if own is not None:
        _check_fit(own, text, tokenizer.encode(text))
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    return [tokenizer.encode_whole(part, longest) for part in (paragraphs if own is None else _spread(paragraphs))]


def _unchanged(own: Path, sha256: str | None) -> str:
    """The user's text. Raises IntegrityError when it is not the one whose digest the recipe holds."""
    text = read_text(own)
    if digest(text) != sha256:
        raise IntegrityError(f"{own} changed while the model was built.", "Run it again.")
    return text


def _spread(items: Sequence[T]) -> list[T]:
    """At most MOST_WINDOWS of `items`, evenly spread."""
    count = min(len(items), MOST_WINDOWS)
    return [items[index * len(items) // count] for index in range(count)]


def _chats(tokenizer: ShippedTokenizer, paragraphs: list[str]) -> list[list[int]]:
    if not tokenizer.chat_template:
        return []
    return [
        tokenizer.encode(tokenizer.render([{"role": "user", "content": paragraph}]) + paragraph)
        for paragraph in paragraphs
    ]


def _check_fit(path: Path, text: str, ids: list[int]) -> None:
    if len(ids) < FEWEST_TOKENS:
        raise UsageError(
            f"{path} is {len(ids)} tokens long; calibration needs {FEWEST_TOKENS} or more.", "A few pages do well."
        )
    per_token = len(text.encode()) / len(ids)
    if per_token < FEWEST_BYTES_PER_TOKEN:
        raise UsageError(
            f"{path} is in no language of this model's tokenizer: it spells it out at {per_token:.1f} bytes per token.",
            "Use text of the kind the model was made for.",
        )
