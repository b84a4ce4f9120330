"""A random checkpoint of any size, streamed to disk: no more than a few megabytes of it are ever in memory."""

from __future__ import annotations

import json
import math
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .shapes import Shape

POOL = 16_777_213
"""Numbers that are drawn; tensors read them round and round. A prime, so that no row repeats another of its matrix."""
VALUES_AT_ONCE = 1 << 22
Bits = npt.NDArray[np.uint16]


def write_checkpoint(shape: Shape, home: Path, downloads: Path) -> int:
    """Write config.json, tokenizer and bfloat16 weights into the new directory `home`; the number of parameters."""
    from kobako.pipeline import families
    from kobako.pipeline.reference.eager import empty_model
    from transformers import AutoConfig

    home.mkdir(parents=True)
    tokens = copy_tokenizer(home, downloads)
    config = AutoConfig.for_model(shape.model_type, **{**shape.settings, **tokens})
    config.save_pretrained(home)
    family = families.get(shape.model_type)
    sizes = {name: tuple(parameter.shape) for name, parameter in empty_model(config).named_parameters()}
    write_weights(home / "model.safetensors", sizes, 1.0 - family.norm_offset)
    return sum(math.prod(size) for size in sizes.values())


def copy_tokenizer(home: Path, downloads: Path) -> dict[str, int]:
    """SmolLM2's, which every shape here has rows for; the ids that config.json should name."""
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load

    known = home / "known"
    known.mkdir()
    reference = load(fetch(parse("smollm2-135m-instruct"), downloads), known)
    shutil.copytree(reference.tokenizer_dir, home, dirs_exist_ok=True)
    shutil.copyfile(reference.directory / "generation_config.json", home / "generation_config.json")
    config = json.loads((reference.directory / "config.json").read_text())
    shutil.rmtree(known)
    return {name: config[name] for name in ("bos_token_id", "eos_token_id")}


def write_weights(path: Path, sizes: Mapping[str, tuple[int, ...]], norm: float) -> None:
    """One safetensors file of bfloat16 numbers: matrices that keep magnitudes, norms that multiply by one."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in sizes.items():
        begin, end = end, end + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pool = np.random.default_rng(0).standard_normal(POOL, np.float32)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, size in sizes.items():
            for part in values(pool, name, size, norm):
                file.write(part.data)


def values(pool: npt.NDArray[np.float32], name: str, size: tuple[int, ...], norm: float) -> Iterator[Bits]:
    """The bits of one tensor, a few megabytes at a time."""
    count = math.prod(size)
    matrix = len(size) == 2
    scale = np.float32(1.2 / size[1] ** 0.5 if matrix else 0.1)
    middle = np.float32(norm if not matrix and name.endswith(("weight", "layer_scalar")) else 0.0)
    begin = zlib.crc32(name.encode()) % len(pool)
    for start in range(0, count, VALUES_AT_ONCE):
        wanted = min(VALUES_AT_ONCE, count - start)
        at = (begin + start) % len(pool)
        drawn = pool[at : at + wanted]
        if len(drawn) < wanted:
            drawn = np.concatenate([drawn, pool[: wanted - len(drawn)]])
        yield bfloat16(drawn * scale + middle)


def bfloat16(numbers: npt.NDArray[np.float32]) -> Bits:
    """The upper halves of float32 numbers, rounded to even."""
    bits = numbers.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
