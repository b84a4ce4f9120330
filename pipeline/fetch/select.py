"""Which files of a checkpoint are needed: safetensors, tokenizer, configuration, licence; never pickles."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from ..errors import UnsupportedModel

SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "chat_template*",
    "LICEN[SC]E*", "NOTICE*", "README*", "USE_POLICY*",
)  # fmt: skip
SENTENCE_FILES = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")
"""How an encoder's hidden states become one vector (sentence-transformers)."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def needed(paths: Iterable[str], where: str) -> tuple[str, ...]:
    """Paths to fetch, weights last. Sub-folders (``original/``, ``onnx/``) are other forms of the same model.

    Raises UnsupportedModel when there are no weights that can be read safely.
    """
    listed = set(paths)
    top = sorted(path for path in listed if "/" not in path)
    small = [path for path in top if any(fnmatch(path, pattern) for pattern in SMALL_FILES)]
    pooling = [path for path in SENTENCE_FILES if path in listed]
    return (*small, *pooling, *weights(top, where))


def files_below(directory: Path) -> list[str]:
    """The files of a checkpoint's directory that `needed` may want."""
    top = [path.name for path in directory.iterdir() if path.is_file()]
    return [*top, *(path for path in SENTENCE_FILES if "/" in path and (directory / path).is_file())]


def weights(top: list[str], where: str) -> list[str]:
    """The weight files among a checkpoint's top-level paths. Raises UnsupportedModel."""
    if SINGLE in top:
        return [SINGLE]
    shards = [path for path in top if fnmatch(path, "model-*-of-*.safetensors")]
    if INDEX in top:
        return [INDEX, *shards]
    if "config.json" not in top and "adapter_config.json" in top:
        if ADAPTER_WEIGHTS not in top:
            raise UnsupportedModel(f"{where} holds an adapter without {ADAPTER_WEIGHTS}.", "Save it as safetensors.")
        return ["adapter_config.json", ADAPTER_WEIGHTS]
    ggufs = [path for path in top if path.endswith(".gguf")]
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise UnsupportedModel(
            f"{where} holds {len(ggufs)} GGUF files, and which is meant is not said.",
            f"Download one of them, such as {ggufs[0]}, and name the file.",
        )
    pickles = [path for path in top if any(fnmatch(path, pattern) for pattern in PICKLES)]
    if pickles:
        raise UnsupportedModel(
            f"{where} holds only pickled weights ({pickles[0]}), which can run code when they are read.",
            "Convert them to safetensors (https://huggingface.co/spaces/safetensors/convert) and name the result.",
        )
    raise UnsupportedModel(f"{where} holds no safetensors weights.", "Is it a model of transformers?")


def is_adapter(paths: Iterable[str]) -> bool:
    """Whether the selected files are a PEFT adapter rather than a model."""
    return any(path == ADAPTER_WEIGHTS for path in paths)


def is_gguf(paths: Iterable[str]) -> bool:
    """Whether the selected files are one GGUF file rather than a safetensors checkpoint."""
    return any(path.endswith(".gguf") for path in paths)
