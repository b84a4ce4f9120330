"""The tokenizer as it ships: ``tokenizer.json`` through the `tokenizers` library, templates in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from .errors import BadArtifact, KobakoError, UnsupportedModel

Text = str | Sequence[str]
"""What an encoder reads: one text, or a question and the passage that answers it."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question and a passage as one row of tokens.

    Attributes:
        types: the token types of models that have any.
        parts: 0 for the question's tokens, 1 for the passage's, None for special ones.
        offsets: of each token, where it begins and ends in its own text.
    """

    ids: list[int]
    types: list[int]
    parts: list[int | None]
    offsets: list[tuple[int, int]]
    passage: str


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A text as tokens that know where they stand.

    Attributes:
        words: of each token, the number of the word it belongs to, None for special ones.
        offsets: of each token, where it begins and ends in the text.
    """

    ids: list[int]
    words: list[int | None]
    offsets: list[tuple[int, int]]
    text: str


@dataclass(frozen=True)
class ShippedTokenizer:
    """A directory with ``tokenizer.json`` and ``tokenizer_config.json``."""

    directory: Path

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        with self._readable():
            return Tokenizer.from_file(str(self.directory / "tokenizer.json"))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """``tokenizer_config.json``. Raises BadArtifact."""
        with self._readable():
            text = (self.directory / "tokenizer_config.json").read_text(encoding="utf-8")
            found = json.loads(text)
            if not isinstance(found, dict):
                raise ValueError("tokenizer_config.json is not an object")
            return found

    @property
    def chat_template(self) -> str | None:
        """The model's chat template, or None. Raises BadArtifact for one that is not text."""
        found = self.config.get("chat_template")
        if found is not None and not isinstance(found, str):
            raise BadArtifact(f"the chat template in {self.directory} is not text.", "Fetch the model again.")
        return found

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Whatever the library says about files that are not a tokenizer, its panics included, is a BadArtifact."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit, KobakoError):
            raise
        except BaseException as error:  # tokenizers raises plain Exception, and panics, which are BaseException
            said = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise BadArtifact(f"the tokenizer in {self.directory} cannot be used: {said}.", "Get it again.") from error

    @property
    def special_tokens(self) -> dict[str, str]:
        """``bos_token`` and ``eos_token`` as templates see them."""
        return {name: str(self.config.get(name) or "") for name in ("bos_token", "eos_token")}

    @property
    def special_texts(self) -> list[str]:
        """How the special tokens are written."""
        with self._readable():
            return [token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special]

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; special tokens written in it are recognized, none are added."""
        with self._readable():
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt, with the tokenizer's own prefix (bos) unless the template wrote it."""
        with self._readable():
            ids = list(self._tokenizer.encode(prompt, add_special_tokens=True).ids)
        plain = self.encode(prompt)
        bos = self.special_tokens["bos_token"]
        return plain if bos and prompt.startswith(bos) else ids

    def encode_pair(self, question: str, passage: str) -> Pair:
        """Both texts with the special tokens that the tokenizer's own template puts around and between them."""
        with self._readable():
            found = self._tokenizer.encode(question, passage, add_special_tokens=True)
        return Pair(
            ids=list(found.ids), types=list(found.type_ids), parts=list(found.sequence_ids),
            offsets=list(found.offsets), passage=passage,
        )  # fmt: skip

    def encode_placed(self, text: str) -> Placed:
        """A text with the special tokens that the tokenizer's own template puts around it."""
        with self._readable():
            found = self._tokenizer.encode(text, add_special_tokens=True)
        return Placed(ids=list(found.ids), words=list(found.word_ids), offsets=list(found.offsets), text=text)

    def encode_whole(self, text: Text, longest: int) -> list[int]:
        """Token ids of a text, or of a question and its passage, for an encoder.

        Special ones stand before and behind it, and it is cut so that all fit: of a pair only the passage.
        """
        if not isinstance(text, str):
            question, passage = text
            with self._readable():
                self._tokenizer.enable_truncation(longest, strategy="only_second")
                try:
                    return list(self._tokenizer.encode(question, passage, add_special_tokens=True).ids)
                finally:
                    self._tokenizer.no_truncation()
        with self._readable():
            self._tokenizer.enable_truncation(longest)
            try:
                return list(self._tokenizer.encode(text, add_special_tokens=True).ids)
            finally:
                self._tokenizer.no_truncation()

    @property
    def prefix(self) -> list[int]:
        """The ids (bos) that the tokenizer itself puts before every text; mostly none."""
        bare, whole = self.encode("x"), list(self._tokenizer.encode("x", add_special_tokens=True).ids)
        return whole[: whole.index(bare[0])] if bare and bare[0] in whole else []

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out."""
        with self._readable():
            return cast("str", self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def token_text(self, index: int) -> str:
        """How one token is written, special ones too; empty for an id beyond the vocabulary."""
        with self._readable():
            return str(self._tokenizer.id_to_token(index) or "")

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The chat template applied, ready to be continued. Raises UnsupportedModel when there is none."""
        from .templates import render

        if not self.chat_template:
            raise UnsupportedModel("the model has no chat template.", "Use a task with a plain prompt.")
        return render(self.chat_template, messages, self.special_tokens)


def stop_ids(directory: Path) -> tuple[int, ...]:
    """All stop tokens of ``generation_config.json`` in `directory`."""
    config = json.loads((directory / "generation_config.json").read_text(encoding="utf-8"))
    eos = config.get("eos_token_id")
    return tuple(eos) if isinstance(eos, list) else () if eos is None else (int(eos),)
