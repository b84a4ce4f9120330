"""Source → Reference: configuration and tokenizer in Hugging Face form, after every check that needs no weights.

What cannot be exported is refused here, in seconds, and not after an hour of conversion.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from .. import families
from ..codec import json_text
from ..contracts import Progress, Reference, Source, no_progress
from ..errors import IntegrityError, UnsupportedModel
from ..heads import EncoderTask, write_head
from ..seq2seq.limits import sides
from ..tokens import ShippedTokenizer
from . import gguf, gguf_config, gguf_tokenizer, hf_tokenizer
from .adapter import NEXT_STEP, check_names, read_adapter
from .heads import Checkpoint, head_for
from .prequantized import original_name, packing_of
from .slices import check_plain, parse_slice, sliced_config
from .structure import STATIC_ROPES
from .weights import full_name, gguf_path, open_safetensors, open_source, safetensors_paths

TEXTS = ("LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY")
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|end_of_text|>", "</s>")
"""Tokens that end an answer when a chat template writes them."""


def load(source: Source, out: Path, progress: Progress = no_progress, task: EncoderTask | None = None) -> Reference:
    """Write what a Reference holds into the existing directory `out`; no weights are copied.

    `task` decides what an encoder is for whose checkpoint could serve several.

    Raises:
        UnsupportedModel: architecture, rope, tokenizer or storage that kobako cannot export.
        IntegrityError: a damaged or missing file, named.
        UsageError: a slice that does not fit the model.
    """
    (out / "tokenizer").mkdir(exist_ok=True)
    progress(0.0, "reading the configuration")
    with gguf.consistent(source.name):
        config = load_gguf(source, out) if source.format == "gguf" else load_directory(source, out, task)
    check_adapter(source, config)
    if source.slice:
        config = sliced_config(config, parse_slice(source.slice))
    progress(0.7, "checking the tokenizer")
    with gguf.consistent(source.name):
        check_vocabulary(out / "tokenizer", config)
        generation = generation_config(source, out / "tokenizer", config)
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", generation)
    for file in source.files:
        if file.path.startswith(TEXTS) and "/" not in file.path:
            shutil.copyfile(source.directory / file.path, out / file.path)
    progress(1.0, "reference ready")
    return Reference(name=source.name, directory=out, source=source, model_type=config["model_type"])


def check_adapter(source: Source, config: Mapping[str, Any]) -> None:
    """Read the adapter's header, if there is one. Raises UnsupportedModel, IntegrityError."""
    if source.adapter is None:
        return
    if families.get(config["model_type"]).per_layer_table:
        raise UnsupportedModel(f"adapters of {config['model_type']} are not merged.", NEXT_STEP)
    with open_source(source, config) as tensors:
        check_names(read_adapter(source.adapter), tensors)


def load_gguf(source: Source, out: Path) -> dict[str, Any]:
    """Configuration of a GGUF file; its tokenizer is written."""
    path = gguf_path(source)
    header = gguf.read_header(path)
    family = families.by_gguf_architecture(header.architecture)
    with gguf.mapped(path) as data, gguf.consistent(path.name):
        gguf_config.parameter_names(header, family)
        config = gguf_config.configuration(header, family, lambda name: gguf.dequantized(data, header.tensors[name]))
        gguf_tokenizer.write(header, out / "tokenizer")
    return config


def load_directory(source: Source, out: Path, task: EncoderTask | None) -> dict[str, Any]:
    """Configuration of a safetensors checkpoint; its tokenizer is written and its files are opened once."""
    config = read_json(source, "config.json")
    check_architecture(config)
    check_plain(source, config)
    family = families.get(config["model_type"])
    if family.rewrite is not None:
        config = family.rewrite(config)
        family = families.get(config["model_type"])
    if family.kind == "seq2seq":
        check_seq2seq(config)
    for part in (config, *sides(config)):
        check_rope(part)
    files = [open_safetensors(path) for path in safetensors_paths(source)]
    packing = packing_of(config)
    stored = [(file, name, original_name(name, packing)) for file in files for name in file.names()]
    names = {full_name(original, family): (file, name) for file, name, original in stored if original}
    if family.embedding not in names and family.model_type not in families.names():
        raise UnsupportedModel(
            f"architecture {family.model_type!r} has no family file, and its embedding is not {family.embedding}: "
            "it is not laid out as llama is.",
            "CONTRIBUTING.md tells how to add a family.",
        )
    check_tables(config, family, names)
    check_per_layer_table(config, family, names)
    check_shapes(config, family, names)
    config.setdefault("tie_word_embeddings", family.head not in names)  # defaults differ between families
    if family.kind == "encoder":
        hf_tokenizer.write_encoders(source, out / "tokenizer", config)
        checkpoint = Checkpoint(source=source, family=family, config=config, names=names)
        write_head(head_for(checkpoint, ShippedTokenizer(out / "tokenizer"), task), out)
    elif family.kind == "seq2seq":
        hf_tokenizer.write_seq2seq(source, out / "tokenizer", config)
    else:
        hf_tokenizer.write(source, out / "tokenizer", config, family.tokenizer)
    config.pop("auto_map", None)  # a known architecture needs no code of the repository
    config.pop("quantization_config", None)  # from here on the weights are the floats that they stand for
    return config


def check_seq2seq(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel for an encoder-decoder whose two sides do not read one table."""
    shared = config.get("share_encoder_decoder_embeddings", True)
    if not shared or config.get("decoder_vocab_size", config.get("vocab_size")) != config.get("vocab_size"):
        raise UnsupportedModel(
            f"this {config['model_type']} has a vocabulary for the source and another for the answer.",
            "Name a checkpoint that shares its embeddings.",
        )


def check_tables(config: Mapping[str, Any], family: families.Family, names: Mapping[str, tuple[Any, str]]) -> None:
    """Raise IntegrityError for a table of tokens that is missing or is not as long as config.json says."""
    for table in family.tables:
        if table not in names:
            raise IntegrityError(f"the checkpoint has no tensor {table}.", "Fetch the model again.")
        holder, stored_name = names[table]
        rows = holder.shape(stored_name)[0]
        if rows != config.get("vocab_size"):
            raise IntegrityError(
                f"{table} has {rows} rows, config.json says vocab_size {config.get('vocab_size')}.",
                "Fetch the model again; if it repeats, tell its authors.",
            )


def check_shapes(config: Mapping[str, Any], family: families.Family, names: Mapping[str, tuple[Any, str]]) -> None:
    """Raise IntegrityError when layers have other numbers of heads, or other widths, than config.json says."""
    wanted = {} if family.shapes is None else family.shapes(config)
    for name, shape in wanted.items():
        holder, stored = names.get(name, (None, ""))
        found = holder.shape(stored) if holder else None
        if found != shape:
            raise IntegrityError(
                f"{stored or name} {f'has shape {found}' if found else 'is missing'}, by config.json it has {shape}.",
                "Take config.json and weights from the same checkpoint.",
            )


def check_per_layer_table(config: Mapping[str, Any], family: families.Family, names: Container[str]) -> None:
    """Raise IntegrityError when only one of configuration and checkpoint has per-layer inputs.

    A model that lost them without a word says other things than the one that was trained.
    """
    if family.per_layer_table is None:
        return
    wanted, stored = config.get("hidden_size_per_layer_input", 1) != 0, family.per_layer_table in names
    if wanted != stored:
        raise IntegrityError(
            f"config.json {'asks for' if wanted else 'rules out'} per-layer inputs (hidden_size_per_layer_input), the "
            f"checkpoint has {'no' if wanted else 'the'} tensor {family.per_layer_table}.",
            "Take both from the same checkpoint.",
        )


def check_architecture(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel for unknown families, remote code and unreadable ways to quantize."""
    model_type = config.get("model_type")
    if "auto_map" in config and model_type not in families.names():
        raise UnsupportedModel(
            f"this checkpoint ({model_type or 'no model_type'}) needs Python code of its own repository, which kobako "
            "does not run.",
            f"Supported architectures: {', '.join(families.names())}.",
        )
    if not isinstance(model_type, str):
        raise UnsupportedModel("config.json names no model_type.", "Is it a model of transformers?")
    families.get(model_type)
    packing_of(config)


def check_rope(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel for rotary embeddings that not every target exports."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for parameters in [value for value in found.values() if isinstance(value, dict)] or [found]:
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind not in STATIC_ROPES:
            raise UnsupportedModel(
                f"its rotary embedding is of type {kind!r}, which no target exports.",
                f"Supported: {', '.join(STATIC_ROPES)}. A checkpoint with the base context may do.",
            )


def check_vocabulary(tokenizer_dir: Path, config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel when the tokenizer can give an id that the embedding has no row for."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= config["vocab_size"]:
        raise UnsupportedModel(
            f"the tokenizer has ids up to {largest}, the embedding only {config['vocab_size']} rows.",
            "The checkpoint's tokenizer belongs to another model, or tokens were added without training.",
        )


def generation_config(source: Source, tokenizer_dir: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The source's own generation settings with every stop id: `eos_token_id` is always a list."""
    listed = any(file.path == "generation_config.json" for file in source.files)
    settings = read_json(source, "generation_config.json") if listed else {}
    known = [*as_list(settings.get("eos_token_id")), *as_list(config.get("eos_token_id"))]
    settings["eos_token_id"] = list(dict.fromkeys([*known, *template_stops(tokenizer_dir)]))
    for key in ("bos_token_id", "pad_token_id"):
        if settings.get(key) is None and config.get(key) is not None:
            settings[key] = config[key]
    return settings


def template_stops(tokenizer_dir: Path) -> list[int]:
    """Ids of the tokenizer's EOS and of end-of-turn tokens that its chat template writes."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    config = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    template = config.get("chat_template") or ""
    names = [config.get("eos_token"), *(token for token in END_OF_TURN if token in template)]
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    ids = [tokenizer.token_to_id(name) for name in names if name in special]
    return [index for index in ids if index is not None]


def as_list(value: Any) -> list[int]:
    """A token id field, which may be absent, one id or several."""
    if value is None:
        return []
    return [int(item) for item in value] if isinstance(value, list) else [int(value)]


def read_json(source: Source, name: str) -> dict[str, Any]:
    """A JSON object among a source's files. Raises IntegrityError."""
    if not any(file.path == name for file in source.files):
        raise IntegrityError(f"{source.name} has no {name}.", "Is it a whole checkpoint of transformers?")
    try:
        value = json.loads((source.directory / name).read_text())
    except (ValueError, OSError) as error:
        raise IntegrityError(f"{name} of {source.name} cannot be read: {error}.", "Fetch the model again.") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{name} of {source.name} is not a JSON object.", "Fetch the model again.")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file for people and machines."""
    path.write_text(json_text(value) + "\n", encoding="utf-8")
