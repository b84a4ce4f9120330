"""Small GGUF files, written by the gguf library, for tests of the reader and of the tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TEXT = [
    "The train goes through a tunnel; the translation goes on. It's 2026 and we've 42 trains.",
    "Une petite boîte contient un petit modèle. 小さな箱に小さなモデルが入っている。",
    "def main():\n    return {'a': [1, 2, 3]}\n\n\n  # the end",
]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


@dataclass(frozen=True, kw_only=True)
class TokenizerFields:
    """What a GGUF file says about a tokenizer."""

    model: str
    pre: str | None
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str] | None = None
    scores: Sequence[float] | None = None
    bos: int = 1
    eos: int = 2
    unknown: int = 0
    extra: dict[str, bool] = field(default_factory=dict)


def byte_level_fields(pre: str = "smollm", vocabulary: int = 400) -> TokenizerFields:
    """A byte-level BPE trained on a few lines."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return TokenizerFields(
        model="gpt2",
        pre=pre,
        tokens=tokens,
        kinds=[3] * 3 + [1] * (len(tokens) - 3),
        merges=[" ".join(pair) for pair in model["merges"]],
    )


def sentencepiece_fields() -> TokenizerFields:
    """A scored vocabulary with byte tokens, as Llama 2's: pieces of a few words and every way to build them."""
    words = [
        "▁the",
        "▁train",
        "▁goes",
        "▁boîte",
        "小さな",
        "▁a",
        "▁",
        "▁▁",
        "▁▁▁▁",
        "ing",
        "tion",
        "▁translation",
        "\n",
    ]
    pieces: dict[str, None] = {}
    for word in words:
        for size in range(len(word), 0, -1):
            for start in range(len(word) - size + 1):
                pieces[word[start : start + size]] = None
    joined = sorted((piece for piece in pieces if len(piece) > 1), key=lambda piece: (len(piece), piece))
    letters = sorted(piece for piece in pieces if len(piece) == 1)
    head = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = [*head, *bytes_, *joined, *letters, "<extra>"]
    scores = [0.0] * (3 + 256) + [-float(rank) for rank in range(len(joined) + len(letters))] + [0.0]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(joined) + len(letters)) + [4]
    return TokenizerFields(model="llama", pre=None, tokens=tokens, kinds=kinds, scores=scores)


def write_gguf(
    path: Path,
    tokenizer: TokenizerFields,
    *,
    tied: bool = True,
    quantization: str = "F32",
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, npt.NDArray[Any]] | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Write a random llama of 2 layers, 64 channels, 4 heads of 16 and 2 key/value heads; its tensors before
    quantization, by their GGUF names. `metadata` adds or replaces architecture keys, `tensors` adds tensors.
    """
    import gguf

    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    keys: dict[str, Any] = {
        "llama.context_length": 512, "llama.embedding_length": 64, "llama.block_count": 2,
        "llama.feed_forward_length": 96, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.rope.freq_base": 100000.0, "llama.rope.dimension_count": 16,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, **(metadata or {}),
    }  # fmt: skip
    for key, value in keys.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    write_tokenizer(writer, tokenizer)
    shapes = {"token_embd": (len(tokenizer.tokens), 64), "output_norm": (64,)}
    for layer in range(2):
        parts = {
            "attn_norm": (64,), "attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64),
            "ffn_norm": (64,), "ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96),
        }  # fmt: skip
        shapes |= {f"blk.{layer}.{part}": shape for part, shape in parts.items()}
    if not tied:
        shapes["output"] = shapes["token_embd"]
    values = {f"{name}.weight": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    kind = gguf.GGMLQuantizationType[quantization]
    for name, value in (values | (tensors or {})).items():
        if value.ndim == 1 or quantization == "F32":
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def write_tokenizer(writer: Any, tokenizer: TokenizerFields) -> None:
    """Add a tokenizer's metadata to a file that is being written."""
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_token_list(list(tokenizer.tokens))
    writer.add_token_types(list(tokenizer.kinds))
    if tokenizer.pre is not None:
        writer.add_tokenizer_pre(tokenizer.pre)
    if tokenizer.merges is not None:
        writer.add_token_merges(list(tokenizer.merges))
    if tokenizer.scores is not None:
        writer.add_token_scores(list(tokenizer.scores))
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_unk_token_id(tokenizer.unknown)
    writer.add_chat_template(TEMPLATE)
    for key, value in tokenizer.extra.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)


def with_extra(tokenizer: TokenizerFields, **flags: bool) -> TokenizerFields:
    """The same tokenizer with flags such as ``add_bos_token``."""
    return replace(tokenizer, extra=flags)
