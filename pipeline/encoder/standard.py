"""What an encoder's artifact is held against. Answers are small, so a package's golden files are the build's own.

Shape legend: N texts, T tokens of the longest of them, E numbers of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..codec import from_json, read_json, write_json
from ..contracts import Activations, FloatArray, Int32Array, Recipe
from ..errors import BadArtifact
from ..heads import Head
from ..standard import Kind, kind_of

FACTS = "golden.json"


@dataclass(frozen=True, kw_only=True)
class EncoderStandard:
    """Everything the proof of one encoder compares with.

    Attributes:
        ids: token ids of each text, special ones included.
        answers: of the quantized reference with this artifact's kind of activations ``[N, E]``.
        float_answers: of the quantized reference with float activations ``[N, E]``.
        facts: ``golden.json``: texts, the head, figures per kind of activations, weight digests.
    """

    recipe: Recipe
    kind: Kind
    head: Head
    ids: list[list[int]]
    answers: FloatArray
    float_answers: FloatArray
    facts: Mapping[str, Any]

    @property
    def figures(self) -> Mapping[str, Any]:
        """Of the quantized reference with this artifact's activations: its quality, and its own noise."""
        found: Mapping[str, Any] = self.facts[self.kind]
        return found


def write_answers(out: Path, kind: Kind, ids: Int32Array, lengths: Int32Array, answers: FloatArray) -> None:
    """``golden-KIND.safetensors``: ``ids`` int32 ``[N, T]``, ``lengths`` int32 ``[N]``, ``answers`` ``[N, E]``."""
    from safetensors.numpy import save_file

    save_file({"ids": ids, "lengths": lengths, "answers": answers}, out / f"golden-{kind}.safetensors")


def write_facts(out: Path, facts: Mapping[str, Any]) -> None:
    """``golden.json``."""
    write_json(out / FACTS, facts)


def read_standard(golden: Path, recipe: Recipe, activations: Activations) -> EncoderStandard:
    """The standard in a directory: an Expectations' own, or a package's. Raises BadArtifact when it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    kind = kind_of(activations)
    try:
        tensors = load_file(golden / f"golden-{kind}.safetensors")
        facts = read_json(golden / FACTS)
        check_facts(facts, kind, len(tensors["ids"]))
        return EncoderStandard(
            recipe=recipe,
            kind=kind,
            head=from_json(facts["head"], Head),
            ids=[
                [int(one) for one in row[:length]]
                for row, length in zip(tensors["ids"], tensors["lengths"], strict=True)
            ],
            answers=tensors["answers"],
            float_answers=load_file(golden / "golden-float.safetensors")["answers"],
            facts=facts,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadArtifact(
            f"the golden files in {golden} cannot be read: {error}.", "Pull the package again."
        ) from error


def check_facts(facts: Mapping[str, Any], kind: Kind, texts: int) -> None:
    """Raise KeyError or ValueError for a ``golden.json`` that lacks what a proof reads."""
    needed = ("noise", "float_distance", "quality_distance", "quality_agreement")
    if missing := [key for key in ("texts", "weight_digests", "original") if key not in facts]:
        raise KeyError(missing[0])
    if missing := [key for key in needed if key not in facts[kind]]:
        raise KeyError(missing[0])
    if len(facts["texts"]) != texts:
        raise ValueError(f"{len(facts['texts'])} texts and the ids of {texts}")
