"""A Hugging Face tokenizer built straight from a GGUF file's metadata.

transformers needs 26 s for SmolLM2, nearly all of it in reading the file; the vocabulary and the merges are all there
is to it. Results are the same ids as transformers' own (tests/contract/test_reference.py compares them).

Token types of GGUF: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IntegrityError, UnsupportedModel
from .gguf import Gguf

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTROL, USER_DEFINED = 3, 4

GPT2 = None
"""ByteLevel's own expression, GPT-2's."""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS: Mapping[str, str | None] = {
    "gpt-2": GPT2,
    "smollm": GPT2,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "llama-bpe": LLAMA3,
    "smaug-bpe": LLAMA3,
    "falcon3": LLAMA3,
    "tekken": TEKKEN,
}
"""How text is cut before the merges apply, by ``tokenizer.ggml.pre``."""
DIGITS_FIRST = {"smollm"}
"""Rules that set every digit apart before anything else, as the model's own tokenizer and llama.cpp do.

transformers 5.23 forgets this when it reads a GGUF file: ``"\\n\\n1."`` is then cut in a way the model never saw.
"""


def build(header: Gguf) -> Tokenizer:
    """The tokenizer of a GGUF file.

    Raises UnsupportedModel for kinds that the file does not define well enough, IntegrityError for missing fields.
    """
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = byte_level(header)
    elif kind == "llama":
        tokenizer = sentencepiece(header)
    else:
        raise UnsupportedModel(
            f"{header.path.name} has a tokenizer of kind {kind!r}.", "Supported in GGUF: gpt2 (byte-level BPE), llama."
        )
    add_special_tokens(tokenizer, header, byte_level_alphabet() if kind == "gpt2" else None)
    set_post_processor(tokenizer, header, default_bos=kind == "llama")
    return tokenizer


def byte_level(header: Gguf) -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and SmolLM have it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges = field(header, "tokens"), field(header, "merges")
    pre = str(header.metadata.get("tokenizer.ggml.pre"))
    if pre not in SPLITS:
        raise UnsupportedModel(
            f"{header.path.name} cuts text by {pre!r}, a rule that kobako does not know.",
            f"Known: {', '.join(SPLITS)}. Try the model's safetensors form.",
        )
    vocabulary = {respelled(token): index for index, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    model = models.BPE(vocabulary, pairs, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    tokenizer = Tokenizer(model)
    split = SPLITS[pre]
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split is not None:
        steps.insert(0, pre_tokenizers.Split(Regex(split), behavior="isolated"))
    if pre in DIGITS_FIRST:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def respelled(token: str) -> str:
    """A token in the byte alphabet; a few files spell some as plain text."""
    alphabet = byte_level_alphabet()
    return token if alphabet.issuperset(token) else "".join(byte_spelling()[byte] for byte in token.encode())


def byte_spelling() -> Mapping[int, str]:
    """How byte-level BPE spells each byte: printable Latin-1 as itself, the rest from U+0100 on."""
    return _BYTE_SPELLING


def byte_level_alphabet() -> frozenset[str]:
    """The 256 characters of `byte_spelling`."""
    return _ALPHABET


def _spelling() -> dict[int, str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + count) for count, byte in enumerate(others)}


_BYTE_SPELLING = _spelling()
_ALPHABET = frozenset(_BYTE_SPELLING.values())


def sentencepiece(header: Gguf) -> Tokenizer:
    """SentencePiece BPE with byte fallback, as Llama 2 and TinyLlama have it; merges follow from the scores."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    # llama.cpp writes user-defined runs of spaces as such; text has "▁" for a space by the time it meets the vocabulary
    tokens = [token.replace(" ", "▁") for token in field(header, "tokens")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if any(f"<0x{byte:02X}>" not in vocabulary for byte in range(256)):
        raise UnsupportedModel(
            f"{header.path.name} lacks byte tokens, so text outside its vocabulary would be lost.",
            "Try the model's safetensors form.",
        )
    if listed := header.metadata.get("tokenizer.ggml.merges"):
        pairs = [tuple(merge.split(" ")) for merge in listed]
    else:
        kinds = header.metadata.get("tokenizer.ggml.token_type") or ()
        whole = frozenset(index for index, kind in enumerate(kinds) if kind == USER_DEFINED)
        pairs = implied_merges(vocabulary, field(header, "scores"), whole)
    unknown = special_tokens(header).get("unk_token")
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, fuse_unk=True, byte_fallback=True, unk_token=unknown))
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if header.metadata.get("tokenizer.ggml.add_space_prefix") is False:  # Gemma
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
        steps.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def implied_merges(
    vocabulary: Mapping[str, int], scores: list[float], whole: frozenset[int] = frozenset()
) -> list[tuple[str, str]]:
    """The merges a scored vocabulary stands for: every way to make a token of two, best score first.

    Among ways to make equally scored tokens, longer left parts come first; then the order of the vocabulary decides.
    The tokens in `whole` come before all others, in their own order: SentencePiece never cuts a user-defined token.
    """
    first: list[tuple[str, str]] = []
    found: list[tuple[float, int, int, str, str]] = []
    for token, index in vocabulary.items():
        ways = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        local = [(left, right) for left, right in ways if left in vocabulary and right in vocabulary]
        if index in whole:
            first.extend(reversed(local))
            continue
        local.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found.extend((scores[index], len(left), len(right), left, right) for left, right in local)
    found.sort(key=lambda entry: entry[:3], reverse=True)
    return first + [(left, right) for *_, left, right in found]


def add_special_tokens(tokenizer: Tokenizer, header: Gguf, alphabet: frozenset[str] | None) -> None:
    """Mark control and named tokens as special, user-defined ones as whole; both are matched before anything else.

    A byte-level token marked as control that is not spelled in the byte alphabet is a converter's mistake: adding it
    would make the vocabulary larger than the embedding. Runs of spaces are made by SentencePiece's merges.
    """
    from tokenizers import AddedToken

    tokens, kinds = field(header, "tokens"), header.metadata.get("tokenizer.ggml.token_type") or ()
    control = [
        AddedToken(token, normalized=False, special=True)
        for token, kind in zip(tokens, kinds, strict=False)
        if kind == CONTROL and (alphabet is None or alphabet.issuperset(token))
    ]
    named = [AddedToken(token, normalized=False, special=True) for token in special_tokens(header).values()]
    tokenizer.add_special_tokens([*control, *(token for token in named if token not in control)])
    defined = [
        AddedToken(token, normalized=False, special=False)
        for token, kind in zip(tokens, kinds, strict=False)
        if kind == USER_DEFINED and tokenizer.token_to_id(token) is not None
    ]
    tokenizer.add_tokens(defined)


def set_post_processor(tokenizer: Tokenizer, header: Gguf, *, default_bos: bool) -> None:
    """Whether a sequence begins with BOS or ends with EOS, as the file says (SentencePiece: BOS unless denied)."""
    from tokenizers import processors

    names = special_tokens(header)
    add_bos = header.metadata.get("tokenizer.ggml.add_bos_token", default_bos) and "bos_token" in names
    add_eos = header.metadata.get("tokenizer.ggml.add_eos_token", False) and "eos_token" in names
    bos, eos = names.get("bos_token", ""), names.get("eos_token", "")
    single = " ".join(part for part in (f"{bos}:0" * add_bos, "$A:0", f"{eos}:0" * add_eos) if part)
    second = " ".join(part for part in (f"{bos}:1" * add_bos, "$B:1", f"{eos}:1" * add_eos) if part)
    used = {token for token, add in ((bos, add_bos), (eos, add_eos)) if add}
    special = [(token, tokenizer.token_to_id(token)) for token in sorted(used)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} {second}", special_tokens=special
    )


def special_tokens(header: Gguf) -> dict[str, str]:
    """``bos_token`` and its like, as strings. Raises IntegrityError for an id beyond the vocabulary."""
    tokens = field(header, "tokens")
    keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    found: dict[str, str] = {}
    for name, key in keys.items():
        index = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is None:
            continue
        if not 0 <= index < len(tokens):
            raise IntegrityError(f"{header.path.name}: {name} is {index}, beyond the vocabulary.", "Fetch it again.")
        found[name] = tokens[index]
    return found


def field(header: Gguf, name: str) -> list[Any]:
    """An array of the tokenizer's metadata that must be there. Raises UnsupportedModel."""
    value = header.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not value:
        raise UnsupportedModel(
            f"{header.path.name} holds no tokenizer.ggml.{name}, so its tokenizer cannot be rebuilt.",
            "Try the model's safetensors form.",
        )
    return value


def write(header: Gguf, tokenizer_dir: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` (chat template inside) into an existing directory."""
    build(header).save(str(tokenizer_dir / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special_tokens(header),
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.key("context_length"),
    }
    if template := header.metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    (tokenizer_dir / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2))
