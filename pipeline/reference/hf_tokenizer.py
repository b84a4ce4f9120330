"""The tokenizer of a Hugging Face checkpoint, made complete: what lies in several files there, in two files here.

Phones read ``tokenizer.json`` and ``tokenizer_config.json`` only, and want plain strings in the second.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..contracts import Source
from ..errors import IntegrityError, UnsupportedModel

NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
CONFIG = "tokenizer_config.json"


def write(source: Source, tokenizer_dir: Path, model_config: Mapping[str, Any]) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into an existing directory.

    Raises UnsupportedModel when the checkpoint has no tokenizer.json, IntegrityError when a file is damaged.
    """
    have = {file.path for file in source.files}
    if "tokenizer.json" not in have:
        other = sorted(have & {"tokenizer.model", "vocab.json", "vocab.txt", "merges.txt"})
        raise UnsupportedModel(
            f"{source.name} has no tokenizer.json" + (f" (only {', '.join(other)})." if other else "."),
            "Make one: AutoTokenizer.from_pretrained(MODEL).save_pretrained(DIRECTORY).",
        )
    shutil.copyfile(source.directory / "tokenizer.json", tokenizer_dir / "tokenizer.json")
    tokenizer = opened(tokenizer_dir / "tokenizer.json")
    config = read(source, CONFIG) if CONFIG in have else {}
    settled = settle(config, model_config, tokenizer)
    template = chat_template(source, have, config)
    settled.pop("chat_template", None)
    if template:
        settled["chat_template"] = template
    (tokenizer_dir / CONFIG).write_text(json.dumps(settled, ensure_ascii=False, indent=2))


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
