"""What an encoder is for, found in its checkpoint: config.json, and the files that sentence-transformers adds.

What stands behind the last layer differs from checkpoint to checkpoint of one architecture; what is not known here is
refused, since any other pooling gives vectors that look right.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..contracts import Source
from ..errors import IntegrityError, UnsupportedModel
from ..families import Family, first_position
from ..heads import EncoderTask, Head
from ..tokens import ShippedTokenizer
from .hf_tokenizer import plain

MODULES = "modules.json"
POOLING = "1_Pooling/config.json"
LIMITS = "sentence_bert_config.json"
POOLINGS: Mapping[str, Literal["mean", "cls"]] = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls",
}  # fmt: skip
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
FILLS = ("ForMaskedLM", "ForPreTraining")
EMBEDS = ("Model", *FILLS)
CLASSIFIES = "ForSequenceClassification"
ANSWERS = "ForQuestionAnswering"
TAGS = "ForTokenClassification"
HEADS = ("classifier", "qa_outputs")
MOST_LABELS = 1_000_000  # as the manifest's schema


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An encoder's checkpoint: its files, its config.json, and the names of its parameters as the model has them."""

    source: Source
    family: Family
    config: Mapping[str, Any]
    names: Collection[str]


def head_for(checkpoint: Checkpoint, tokenizer: ShippedTokenizer, wanted: EncoderTask | None = None) -> Head:
    """The head of an encoder's checkpoint; `wanted` is the task that was asked for, where it could serve several.

    Raises UnsupportedModel for a head or a pooling that kobako does not know, IntegrityError for a damaged file.
    """
    source, config, names = checkpoint.source, checkpoint.config, checkpoint.names
    check_encoder(config)
    positions = int(config["max_position_embeddings"]) - first_position(checkpoint.family, config)
    have = {file.path for file in source.files}
    limit = read(source, LIMITS).get("max_seq_length") if LIMITS in have else None
    longest = min(positions, limit) if isinstance(limit, int) and limit > 0 else positions
    architecture = ((config.get("architectures") or [""])[0]).removesuffix("LMHeadModel")
    if architecture.endswith(CLASSIFIES):
        labels = labels_of(config)
        many = config.get("problem_type") == "multi_label_classification"
        return Head(task="classify", size=len(labels), longest_tokens=longest, labels=labels, many=many)
    if architecture.endswith(TAGS):
        labels = labels_of(config)
        return Head(task="tag", size=len(labels), longest_tokens=longest, labels=labels)
    if architecture.endswith(ANSWERS):
        return Head(task="answer", size=2, longest_tokens=longest, separator_id=separator(checkpoint, tokenizer))
    filler = f"{checkpoint.family.filler}."
    if architecture.endswith(FILLS) and wanted != "embed" and any(name.startswith(filler) for name in names):
        return mask_head(checkpoint, tokenizer, longest)
    with_head = next((name for name in HEADS if any(one.startswith(f"{name}.") for one in names)), None)
    if not architecture.endswith(EMBEDS) and (architecture or with_head):
        raise UnsupportedModel(
            f"{source.name} is a {architecture or config['model_type'] + ' with the head ' + str(with_head)}: kobako "
            "exports encoders that embed or classify a text, label its words, fill in a masked one, or answer a "
            "question on a passage.",
            f"Name a checkpoint of a …Model, …{CLASSIFIES}, …{TAGS}, …ForMaskedLM or …{ANSWERS}.",
        )
    hidden = int(config.get("hidden_size") or config["dim"])
    return embedding_head(source, have, hidden, longest)


def separator(checkpoint: Checkpoint, tokenizer: ShippedTokenizer) -> int:
    """The token behind which the second text has another type; -1 for a model without types.

    Raises UnsupportedModel for a tokenizer that does not set two texts apart so, or a head that does not tell two ends.
    """
    if (count := len(checkpoint.config.get("id2label") or "12")) != 2:
        raise UnsupportedModel(
            f"the head of {checkpoint.source.name} gives {count} numbers for a token, not an answer's two ends.",
            "Name a checkpoint that finds answers in a passage.",
        )
    pair = tokenizer.encode_pair("one", "two")
    if not any(pair.types) or int(checkpoint.config.get("type_vocab_size") or 1) < 2:
        if pair.ids and None in pair.parts[pair.parts.index(0) : pair.parts.index(1)]:
            return -1
    else:
        last = pair.ids[pair.types.index(1) - 1]
        if pair.types == [int(last in pair.ids[:index]) for index in range(len(pair.ids))]:
            return last
    raise UnsupportedModel(
        f"the tokenizer of {checkpoint.source.name} does not set a question and a passage apart.",
        "Use the tokenizer that was published with the weights.",
    )


def check_encoder(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel for encoders that are not read all at once, with absolute positions."""
    kind = config["model_type"]
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise UnsupportedModel(f"this {kind} is used as a decoder, which kobako does not export.", "Name an encoder.")
    if (positions := config.get("position_embedding_type", "absolute")) != "absolute":
        raise UnsupportedModel(f"this {kind} has positions of type {positions!r}.", "Only absolute ones are exported.")


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes in the order of the logits. Raises UnsupportedModel for one score (regression)."""
    named = {int(index): str(label) for index, label in (config.get("id2label") or {}).items()}
    count = len(named) or int(config.get("num_labels") or 2)
    if count > MOST_LABELS:
        raise UnsupportedModel(f"config.json says that this model has {count:,} labels.", f"At most {MOST_LABELS:,}.")
    if count < 2 or config.get("problem_type") == "regression":
        raise UnsupportedModel("this model gives one score instead of classes.", "Regression is not exported.")
    return tuple(named.get(index, f"LABEL_{index}") for index in range(count))


def mask_head(checkpoint: Checkpoint, tokenizer: ShippedTokenizer, longest: int) -> Head:
    """The head that tells a masked token. Raises UnsupportedModel without a mask, or with a table of its own."""
    config, mask = checkpoint.config, plain(tokenizer.config.get("mask_token")) or "[MASK]"
    ids = tokenizer.encode(mask)
    if len(ids) != 1:
        raise UnsupportedModel(f"the tokenizer of {checkpoint.source.name} has no mask token.", "Try --task embed.")
    if not config.get("tie_word_embeddings", True):
        raise UnsupportedModel(
            f"the head of {checkpoint.source.name} has a table apart from the embedding's.", "Try --task embed."
        )
    return Head(task="fill-mask", size=int(config["vocab_size"]), longest_tokens=longest, mask=mask, mask_id=ids[0])


def embedding_head(source: Source, have: Collection[str], hidden: int, longest: int) -> Head:
    """How hidden states become one vector, as the checkpoint's own files tell it."""
    modules = [str(one.get("type", "")).rpartition(".")[2] for one in listed(source)] if MODULES in have else []
    if strange := [name for name in modules if name not in KNOWN_MODULES]:
        raise UnsupportedModel(
            f"{source.name} has a sentence-transformers module {strange[0]!r}, which is not exported.",
            f"Known: {', '.join(KNOWN_MODULES)}.",
        )
    if "Pooling" in modules and POOLING not in have:
        raise IntegrityError(f"{source.name} has no {POOLING}, which its {MODULES} names.", "Fetch the model again.")
    pooling: Literal["mean", "cls"] = "mean"
    if POOLING in have:
        modes = [key for key, on in read(source, POOLING).items() if key.startswith("pooling_mode_") and on]
        if len(modes) != 1 or modes[0] not in POOLINGS:
            raise UnsupportedModel(
                f"{source.name} pools by {', '.join(modes) or 'nothing'}.", f"Known: {', '.join(POOLINGS)}."
            )
        pooling = POOLINGS[modes[0]]
    return Head(
        task="embed", size=hidden, longest_tokens=longest, pooling=pooling, normalize="Normalize" in modules,
        stated=POOLING in have,
    )  # fmt: skip


def read(source: Source, name: str) -> dict[str, Any]:
    """A JSON object of the checkpoint. Raises IntegrityError."""
    value = parsed(source, name)
    if not isinstance(value, dict):
        raise IntegrityError(f"{name} of {source.name} is not a JSON object.", "Fetch the model again.")
    return value


def listed(source: Source) -> list[dict[str, Any]]:
    """The modules that sentence-transformers puts after another. Raises IntegrityError."""
    value = parsed(source, MODULES)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise IntegrityError(f"{MODULES} of {source.name} is not a list of modules.", "Fetch the model again.")
    return value


def parsed(source: Source, name: str) -> Any:
    """A JSON file of the checkpoint. Raises IntegrityError."""
    try:
        return json.loads((source.directory / name).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise IntegrityError(f"{name} of {source.name} cannot be read: {error}.", "Fetch the model again.") from error
