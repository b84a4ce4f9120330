"""What a package says about itself, in the model's user-defined metadata under ``kobako.``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kobako.pipeline.errors import BadArtifact

PREFIX = "kobako."
FORMAT = 1
SEQ2SEQ = "seq2seq"
PER_LAYER_INPUTS = "per_layer_inputs"
"""The input ``[1, T, L, W]`` float16: a table's values of the tokens, times its multiplier."""


@dataclass(frozen=True, kw_only=True)
class SelfDescription:
    """The facts an app or a runtime needs.

    Attributes:
        context_tokens: slots of the KV states.
        prefill_tokens: the chunk length of the function ``prefill``.
        layers: the states are ``k_cache_0`` … ``v_cache_{layers - 1}``.
        vocabulary: how many logits.
        stop_ids: token ids that end an answer.
        weights: Hugging Face parameter name by MIL value name.
        table: Hugging Face parameter whose rows, from a table file beside, go into PER_LAYER_INPUTS; empty = none.
    """

    name: str
    model_type: str
    recipe: str
    context_tokens: int
    prefill_tokens: int
    layers: int
    vocabulary: int
    stop_ids: tuple[int, ...]
    weights: Mapping[str, str]
    table: str = ""

    def metadata(self) -> dict[str, str]:
        """As strings for the model file."""
        return as_metadata({**vars(self), "stop_ids": list(self.stop_ids), "weights": dict(self.weights)})


@dataclass(frozen=True, kw_only=True)
class EncoderDescription:
    """The same of an encoder.

    Attributes:
        lengths: there is a function ``encode_T`` for each of these numbers of tokens.
        size: how many numbers an answer has.
        weights: Hugging Face parameter name by MIL value name.
    """

    name: str
    model_type: str
    recipe: str
    lengths: tuple[int, ...]
    size: int
    weights: Mapping[str, str]

    def metadata(self) -> dict[str, str]:
        """As strings for the model file."""
        return as_metadata({**vars(self), "lengths": list(self.lengths), "weights": dict(self.weights)})


@dataclass(frozen=True, kw_only=True)
class Seq2SeqDescription:
    """The same of an encoder-decoder, with functions ``encode_T`` and ``decode``.

    Attributes:
        context_tokens: of the source, and slots of the answer's caches.
        lengths: there is a function ``encode_T`` for each of these numbers of tokens, the context among them.
        layers: of the decoder: ``cross_k_0`` … ``cross_v_{layers - 1}`` and ``self_k_0`` … are its caches.
        vocabulary: how many logits.
        weights: Hugging Face parameter name by MIL value name.
    """

    name: str
    model_type: str
    recipe: str
    context_tokens: int
    lengths: tuple[int, ...]
    layers: int
    vocabulary: int
    weights: Mapping[str, str]
    kind: str = SEQ2SEQ

    def metadata(self) -> dict[str, str]:
        """As strings for the model file."""
        return as_metadata({**vars(self), "lengths": list(self.lengths), "weights": dict(self.weights)})


def is_seq2seq(metadata: Mapping[str, str]) -> bool:
    """Whether a package says that it is an encoder-decoder."""
    return metadata.get(PREFIX + "kind") == SEQ2SEQ


def as_metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as strings under ``kobako.``; what is no string already, as JSON."""
    whole = {**facts, "format": FORMAT}
    return {PREFIX + key: value if isinstance(value, str) else json.dumps(value) for key, value in whole.items()}


def check_format(metadata: Mapping[str, str]) -> None:
    """Raise BadArtifact when a package does not describe itself, or in another format."""
    if metadata.get(PREFIX + "format") != str(FORMAT):
        found = metadata.get(PREFIX + "format", "none")
        raise BadArtifact(f"the package's kobako format is {found}, not {FORMAT}.", "Export the model again.")


def read_weights(metadata: Mapping[str, str]) -> dict[str, str]:
    """Hugging Face parameter name by MIL value name, of a decoder or an encoder. Raises BadArtifact."""
    check_format(metadata)
    try:
        return dict(json.loads(metadata[PREFIX + "weights"]))
    except (KeyError, ValueError, TypeError) as error:
        raise BadArtifact(f"the package's kobako metadata is damaged: {error!r}.", "Export the model again.") from error


def read_encoder(metadata: Mapping[str, str]) -> EncoderDescription:
    """The description of an encoder. Raises BadArtifact when there is none."""
    weights = read_weights(metadata)
    try:
        lengths: list[Any] = json.loads(metadata[PREFIX + "lengths"])
        return EncoderDescription(
            name=metadata[PREFIX + "name"], model_type=metadata[PREFIX + "model_type"],
            recipe=metadata[PREFIX + "recipe"], lengths=tuple(int(one) for one in lengths),
            size=int(metadata[PREFIX + "size"]), weights=weights,
        )  # fmt: skip
    except (KeyError, ValueError, TypeError) as error:
        raise BadArtifact(
            f"the package is not an encoder of kobako's: {error!r}.", "Export the model again."
        ) from error


def read_seq2seq(metadata: Mapping[str, str]) -> Seq2SeqDescription:
    """The description of an encoder-decoder. Raises BadArtifact when there is none."""
    weights = read_weights(metadata)
    try:
        if not is_seq2seq(metadata):
            raise ValueError("another kind of model")
        lengths: list[Any] = json.loads(metadata[PREFIX + "lengths"])
        return Seq2SeqDescription(
            name=metadata[PREFIX + "name"], model_type=metadata[PREFIX + "model_type"],
            recipe=metadata[PREFIX + "recipe"], context_tokens=int(metadata[PREFIX + "context_tokens"]),
            lengths=tuple(int(one) for one in lengths), layers=int(metadata[PREFIX + "layers"]),
            vocabulary=int(metadata[PREFIX + "vocabulary"]), weights=weights,
        )  # fmt: skip
    except (KeyError, ValueError, TypeError) as error:
        raise BadArtifact(
            f"the package is not an encoder-decoder of kobako's: {error!r}.", "Export the model again."
        ) from error


def read_description(metadata: Mapping[str, str]) -> SelfDescription:
    """The description in a model's metadata. Raises BadArtifact when it is not there or of another format."""
    weights = read_weights(metadata)
    try:
        stops: list[Any] = json.loads(metadata[PREFIX + "stop_ids"])
        return SelfDescription(
            name=metadata[PREFIX + "name"], model_type=metadata[PREFIX + "model_type"],
            recipe=metadata[PREFIX + "recipe"], context_tokens=int(metadata[PREFIX + "context_tokens"]),
            prefill_tokens=int(metadata[PREFIX + "prefill_tokens"]), layers=int(metadata[PREFIX + "layers"]),
            vocabulary=int(metadata[PREFIX + "vocabulary"]), stop_ids=tuple(int(one) for one in stops),
            weights=weights, table=metadata.get(PREFIX + "table", ""),
        )  # fmt: skip
    except (KeyError, ValueError, TypeError) as error:
        raise BadArtifact(f"the package's kobako metadata is damaged: {error!r}.", "Export the model again.") from error
