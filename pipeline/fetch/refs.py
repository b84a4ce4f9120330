"""What a user may write where a MODEL is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import catalogue
from ..errors import NotFound, UnsupportedModel, UsageError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HOW_TO_WRITE = (
    "A model is a catalogue name (`kobako models`), a Hub id such as HuggingFaceTB/SmolLM2-360M-Instruct or "
    "org/name@revision, a directory with a config.json, or a .gguf file."
)


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A model as the user named it, understood but not yet looked for.

    Attributes:
        kind: which room-mate fetches it.
        text: the catalogue's name, ``org/name``, or an absolute path.
        revision: what stood behind ``@``: a branch, a tag or a commit.
        name: a slug fit for file names.
    """

    kind: Literal["catalogue", "hub", "directory", "gguf"]
    text: str
    revision: str | None
    name: str


def parse(text: str) -> ModelRef:
    """Understand a MODEL argument, without a network.

    Raises:
        NotFound: nothing of that name; the message names near ones.
        UnsupportedModel: a model whose weights are not published.
        UsageError: a directory whose content is ambiguous, or an empty name.
    """
    if not text.strip():
        raise UsageError("no model was named.", HOW_TO_WRITE)
    head, _, revision = text.partition("@")
    if known := catalogue.closed(head):
        raise UnsupportedModel(
            f"{head} cannot be exported: {known.reason}",
            f"Nearest open models here: {', '.join(known.instead)}; all of them: `kobako models`.",
        )
    if entry := catalogue.find(head):
        return ModelRef(kind="catalogue", text=entry.name, revision=revision or None, name=entry.name)
    path = Path(text).expanduser()
    if path.exists():
        return path_reference(path.resolve())
    if text.startswith((".", "/", "~")) or text.endswith(".gguf"):
        raise NotFound(f"there is no file or directory {text}.", HOW_TO_WRITE)
    if HUB_ID.fullmatch(head):
        return ModelRef(kind="hub", text=head, revision=revision or None, name=slug(head.rpartition("/")[2]))
    near = catalogue.near(head)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise NotFound(f"there is no model {text!r}.", hint + HOW_TO_WRITE)


def parse_adapter(text: str) -> ModelRef:
    """Understand an --adapter: a Hub id or a directory with an adapter_config.json. Raises NotFound, UsageError."""
    path = Path(text).expanduser()
    if (path / "adapter_config.json").is_file():
        return ModelRef(kind="directory", text=str(path.resolve()), revision=None, name=slug(path.resolve().name))
    head, _, revision = text.partition("@")
    if path.exists() or not HUB_ID.fullmatch(head):
        raise NotFound(
            f"{text!r} is no adapter: it holds no adapter_config.json.",
            "Name the directory that PEFT saved, or a Hub id.",
        )
    return ModelRef(kind="hub", text=head, revision=revision or None, name=slug(head.rpartition("/")[2]))


def path_reference(path: Path) -> ModelRef:
    """A reference to something on this disk. Raises NotFound, UsageError."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(f"{path} is not a .gguf file.", "Name a .gguf file or the directory of a checkpoint.")
        return ModelRef(kind="gguf", text=str(path), revision=None, name=slug(path.stem))
    if (path / "config.json").is_file():
        return ModelRef(kind="directory", text=str(path), revision=None, name=slug(path.name))
    if (path / "adapter_config.json").is_file():
        raise UsageError(
            f"{path} holds an adapter, not a whole model.", "Name its base model, and this one with --adapter."
        )
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) > 1:
        raise UsageError(f"{path} holds {len(ggufs)} .gguf files.", f"Name one of them, such as {ggufs[0]}.")
    if not ggufs:
        raise NotFound(f"{path} holds neither a config.json nor a .gguf file.", HOW_TO_WRITE)
    return ModelRef(kind="gguf", text=str(ggufs[0]), revision=None, name=slug(ggufs[0].stem))


def slug(text: str) -> str:
    """Lower-case letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "model"
