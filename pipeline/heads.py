"""What an encoder's output is: decided once from the checkpoint, read by every later stage and by every target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .codec import from_json, read_json, to_json, write_json

HEAD_FILE = "head.json"


@dataclass(frozen=True, kw_only=True)
class Head:
    """How hidden states become an answer.

    Attributes:
        task: ``embed`` (one vector for a text) or ``classify`` (one logit for each label).
        size: how many numbers come out.
        longest_tokens: of a text the model was made for, special tokens included.
        pooling: of ``embed``: the mean over the text's tokens, or the first token's state.
        normalize: of ``embed``: vectors have length 1.
        stated: of ``embed``: the checkpoint itself tells its pooling; otherwise it is sentence-transformers' default.
        labels: of ``classify``, in the order of the logits.
        many: of ``classify``: labels do not exclude each other (a sigmoid each instead of one softmax).
    """

    task: Literal["embed", "classify"]
    size: int
    longest_tokens: int
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = False
    stated: bool = True
    labels: tuple[str, ...] = ()
    many: bool = False

    def words(self) -> str:
        """For people."""
        if self.task == "classify":
            return f"{self.size} labels"
        pooled = {"mean": "mean of all tokens", "cls": "first token"}[self.pooling]
        assumed = "" if self.stated else " (not stated by the checkpoint: the usual default)"
        return f"{self.size} numbers, {pooled}{', normalized' if self.normalize else ''}{assumed}"


def write_head(head: Head, directory: Path) -> None:
    """Write ``head.json`` into a directory."""
    write_json(directory / HEAD_FILE, to_json(head))


def find_head(directory: Path) -> Head | None:
    """The head in a Reference's or a Quantized's directory; None for a decoder, which has none."""
    path = directory / HEAD_FILE
    return from_json(read_json(path), Head) if path.is_file() else None


def head_of(directory: Path) -> Head:
    """The head in the directory of an encoder. Raises OSError when there is none."""
    return from_json(read_json(directory / HEAD_FILE), Head)
