"""What an encoder's output is: decided once from the checkpoint, read by every later stage and by every target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .codec import from_json, read_json, to_json, write_json
from .families import Family

HEAD_FILE = "head.json"
EncoderTask = Literal["embed", "classify", "fill-mask", "answer", "tag"]
ENCODER_TASKS: tuple[EncoderTask, ...] = get_args(EncoderTask)


@dataclass(frozen=True, kw_only=True)
class Head:
    """How hidden states become an answer.

    Attributes:
        task: ``embed`` (one vector for a text), ``classify`` (one logit for each label), ``fill-mask`` (one logit for
            each token of the vocabulary, for the one that is masked), ``answer`` (of a question and a passage: for
            each token two logits, that the answer begins and that it ends there) or ``tag`` (for each token one logit
            for each label).
        size: how many numbers come out; of ``answer`` and ``tag``: for each token.
        longest_tokens: of a text the model was made for, special tokens included.
        pooling: of ``embed``: the mean over the text's tokens, or the first token's state.
        normalize: of ``embed``: vectors have length 1.
        stated: of ``embed``: the checkpoint itself tells its pooling; otherwise it is sentence-transformers' default.
        labels: of ``classify`` and ``tag``, in the order of the logits.
        many: of ``classify``: labels do not exclude each other (a sigmoid each instead of one softmax).
        separator_id: of ``answer``, the token behind which the passage begins, where the model tells the two apart by
            types of tokens; -1 where it does not.
        mask, mask_id: of ``fill-mask``: how the masked token is written, and its id.
    """

    task: EncoderTask
    size: int
    longest_tokens: int
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = False
    stated: bool = True
    labels: tuple[str, ...] = ()
    many: bool = False
    mask: str = ""
    mask_id: int = -1
    separator_id: int = -1

    @property
    def chooses(self) -> bool:
        """Whether the numbers are logits, of labels or of tokens, and not a vector."""
        return self.task != "embed"

    @property
    def chosen(self) -> str:
        """What is chosen, for people."""
        return {"answer": "spans", "tag": "tags"}.get(self.task, "labels")

    def words(self) -> str:
        """For people."""
        if self.task == "classify":
            return f"{self.size} labels"
        if self.task == "tag":
            return f"one of {self.size} labels for each word"
        if self.task == "answer":
            return "a span of the passage"
        if self.task == "fill-mask":
            return f"{self.size} tokens for {self.mask}"
        pooled = {"mean": "mean of all tokens", "cls": "first token"}[self.pooling]
        assumed = "" if self.stated else " (not stated by the checkpoint: the usual default)"
        return f"{self.size} numbers, {pooled}{', normalized' if self.normalize else ''}{assumed}"


def write_head(head: Head, directory: Path) -> None:
    """Write ``head.json`` into a directory."""
    write_json(directory / HEAD_FILE, to_json(head))


def encoder_task(names: Iterable[str]) -> EncoderTask | None:
    """The first of some tasks' names that only an encoder does, or None."""
    asked = set(names)
    return next((task for task in ENCODER_TASKS if task in asked), None)


def reads_table(family: Family, head: Head | None) -> str:
    """The parameter that is the embedding's table once more, where the model ties the two; empty when none is."""
    if head is None:
        return family.head
    return family.filler_table if head.task == "fill-mask" else ""


def find_head(directory: Path) -> Head | None:
    """The head in a Reference's or a Quantized's directory; None for a decoder, which has none."""
    path = directory / HEAD_FILE
    return from_json(read_json(path), Head) if path.is_file() else None


def head_of(directory: Path) -> Head:
    """The head in the directory of an encoder. Raises OSError when there is none."""
    return from_json(read_json(directory / HEAD_FILE), Head)
