"""The tokenizer of a Hugging Face checkpoint, made complete: what lies in several files there, in two files here.

Phones read ``tokenizer.json`` and ``tokenizer_config.json`` only, and want plain strings in the second.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..codec import json_text
from ..contracts import Source
from ..errors import IntegrityError, UnsupportedModel
from ..seq2seq.facts import NAMES_LANGUAGES
from ..seq2seq.tasks import languages_of
from ..tokens import ShippedTokenizer

NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
CONFIG = "tokenizer_config.json"


def write(source: Source, tokenizer_dir: Path, model_config: Mapping[str, Any], whose: str = "") -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into an existing directory; `whose`: as `missing` has it.

    Raises UnsupportedModel when the checkpoint has no tokenizer.json, IntegrityError when a file is damaged.
    """
    if not has(source, "tokenizer.json"):
        raise missing(source, whose)
    shutil.copyfile(source.directory / "tokenizer.json", tokenizer_dir / "tokenizer.json")
    write_settings(source, tokenizer_dir, model_config)


def has(source: Source, name: str) -> bool:
    """Whether a source has a file of this name."""
    return any(file.path == name for file in source.files)


def missing(source: Source, whose: str = "") -> UnsupportedModel:
    """The error for a checkpoint whose tokenizer cannot be used; `whose`: the model that it shares one with."""
    names = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt")
    other = sorted(name for name in names if has(source, name))
    if whose and not other:
        return UnsupportedModel(
            f"{source.name} has no tokenizer.json: it uses the tokenizer of {whose}.",
            f"Put tokenizer.json and tokenizer_config.json of {whose} beside its weights, and name that directory.",
        )
    return UnsupportedModel(
        f"{source.name} has no tokenizer.json" + (f" (only {', '.join(other)})." if other else "."),
        "Make one: AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIRECTORY).",
    )


def write_settings(source: Source, tokenizer_dir: Path, model_config: Mapping[str, Any]) -> None:
    """Write ``tokenizer_config.json`` beside a tokenizer.json, the chat template inside."""
    have = {file.path for file in source.files}
    tokenizer = opened(tokenizer_dir / "tokenizer.json")
    config = read(source, CONFIG) if CONFIG in have else {}
    settled = settle(config, model_config, tokenizer)
    template = chat_template(source, have, config)
    settled.pop("chat_template", None)
    if template:
        settled["chat_template"] = template
    (tokenizer_dir / CONFIG).write_text(json_text(settled), encoding="utf-8")


def write_encoders(source: Source, tokenizer_dir: Path, model_config: Mapping[str, Any]) -> None:
    """The same for an encoder: made of ``vocab.txt`` where there is no tokenizer.json, and without padding.

    sentence-transformers stores the padding and truncation of its last call in tokenizer.json; a device pads as the
    artifact's shapes want it. Raises UnsupportedModel when nothing tells whether the vocabulary is lower-case.
    """
    path = tokenizer_dir / "tokenizer.json"
    if has(source, "tokenizer.json"):
        shutil.copyfile(source.directory / "tokenizer.json", path)
    elif has(source, "vocab.txt"):
        from_vocabulary(source, read(source, CONFIG) if has(source, CONFIG) else {}).save(str(path))
    else:
        raise missing(source)
    opened(path)
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(whole | {"truncation": None, "padding": None}, ensure_ascii=False), encoding="utf-8")
    write_settings(source, tokenizer_dir, model_config)


def write_seq2seq(source: Source, tokenizer_dir: Path, model_config: Mapping[str, Any]) -> None:
    """The same for an encoder-decoder, without padding; where prompts name the languages, the tokenizer adds nothing.

    Raises UnsupportedModel when there is no tokenizer.json, or none with the languages' tokens.
    """
    if not has(source, "tokenizer.json") and model_config["model_type"] == "marian":
        raise UnsupportedModel(
            f"{source.name} has no tokenizer.json; Marian's two SentencePiece models, one for each side (source.spm, "
            "target.spm), are not turned into one.",
            "Name a checkpoint of the same model with a tokenizer.json.",
        )
    if not has(source, "tokenizer.json"):
        raise missing(source)
    path = tokenizer_dir / "tokenizer.json"
    shutil.copyfile(source.directory / "tokenizer.json", path)
    opened(path)
    whole = json.loads(path.read_text(encoding="utf-8")) | {"truncation": None, "padding": None}
    if model_config["model_type"] in NAMES_LANGUAGES:
        whole["post_processor"] = None
    path.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    write_settings(source, tokenizer_dir, model_config)
    if model_config["model_type"] in NAMES_LANGUAGES and not languages_of(ShippedTokenizer(tokenizer_dir)):
        raise UnsupportedModel(
            f"the tokenizer.json of {source.name} has no special tokens of languages, such as __fr__ or fra_Latn.",
            "Make one with the model's own tokenizer class: AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIR).",
        )


def from_vocabulary(source: Source, config: Mapping[str, Any]) -> Any:
    """The WordPiece tokenizer of a ``vocab.txt``. Raises UnsupportedModel, IntegrityError."""
    from tokenizers.implementations import BertWordPieceTokenizer

    text = (source.directory / "vocab.txt").read_text(encoding="utf-8")
    words = text.removesuffix("\n").split("\n")  # a word may be another line separator
    lowercase = config.get("do_lower_case")
    if lowercase is None:
        if any(word != word.lower() for word in words if not word.startswith("[")):
            raise UnsupportedModel(
                f"{source.name} has a vocab.txt with capitals, and no tokenizer_config.json that tells do_lower_case.",
                'Add {"do_lower_case": false} there if its makers say so, or make a tokenizer.json.',
            )
        lowercase = True
    try:
        return BertWordPieceTokenizer(
            vocab={word: index for index, word in enumerate(words)},
            lowercase=lowercase,
            strip_accents=config.get("strip_accents"),
            handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        )
    except TypeError as error:  # no [CLS] or [SEP] among the words
        raise IntegrityError(f"vocab.txt of {source.name}: {error}.", "Fetch the model again.") from error


def opened(path: Path) -> Any:
    """A tokenizer.json. Raises IntegrityError."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise IntegrityError(f"tokenizer.json cannot be read: {error}.", "Fetch the model again.") from error


def settle(config: Mapping[str, Any], model_config: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Tokenizer settings with plain strings, and with BOS and EOS even when only the model's configuration has them."""
    settled = {key: value for key, value in config.items() if key not in ("auto_map", *NAMED)}
    # tokenizer.json is the one truth: other classes rebuild parts of it by rules of their own.
    settled["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in NAMED:
        token = plain(config.get(name))
        if token is None and name in ("bos_token", "eos_token"):
            index = model_config.get(f"{name}_id")
            index = index[0] if isinstance(index, list) and index else index
            token = tokenizer.id_to_token(index) if isinstance(index, int) and index >= 0 else None
        if token is not None:
            settled[name] = token
    return settled


def plain(token: Any) -> str | None:
    """A token that may be written as a string or as an object with ``content``."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def chat_template(source: Source, have: set[str], config: Mapping[str, Any]) -> str | None:
    """The default chat template, wherever the checkpoint keeps it: ``chat_template.jinja`` wins, as in transformers."""
    if "chat_template.jinja" in have:
        return (source.directory / "chat_template.jinja").read_text()
    template = read(source, "chat_template.json").get("chat_template") if "chat_template.json" in have else None
    template = template or config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def read(source: Source, name: str) -> dict[str, Any]:
    """A JSON object of the checkpoint. Raises IntegrityError."""
    try:
        value = json.loads((source.directory / name).read_text())
    except (ValueError, OSError) as error:
        raise IntegrityError(f"{name} of {source.name} cannot be read: {error}.", "Fetch the model again.") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{name} of {source.name} is not a JSON object.", "Fetch the model again.")
    return value
