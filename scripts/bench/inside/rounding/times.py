"""How long the stage ``quantize`` takes, and how much memory, for random llamas of three sizes."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kobako.pipeline.codec import to_json
from kobako.pipeline.contracts import Recipe, Reference
from kobako.pipeline.fetch import fetch, parse
from kobako.pipeline.process import Limits, Workers
from kobako.pipeline.reference.load import load

from .sources import CACHE

SIZES: Mapping[str, Mapping[str, int]] = {
    "SmolLM2-135M cut to 8 layers": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "SmolLM2-135M's shape": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "SmolLM2-360M's shape": {
        "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
        "num_key_value_heads": 5,
    },
}  # fmt: skip
VOCABULARY = 49152
HEAD = ("model", "parameters", "recipe", "seconds", "peak memory")


@dataclass(frozen=True)
class Row:
    """One quantization."""

    model: str
    parameters: int
    recipe: str
    seconds: float
    peak_bytes: int

    def cells(self) -> list[str]:
        """For the table."""
        millions, gigabytes = f"{self.parameters / 1e6:.0f} M", f"{self.peak_bytes / 1e9:.2f} GB"
        return [self.model, millions, self.recipe, f"{self.seconds:.0f}", gigabytes]


def rows(recipe: Recipe, work: Path, threads: int) -> Iterator[Row]:
    """One size after the other."""
    for name, sizes in SIZES.items():
        home = work / str(sizes["hidden_size"] * sizes["num_hidden_layers"])
        reference = random_reference(sizes, home)
        out = home / "quantized"
        out.mkdir()
        arguments = {"reference": to_json(reference), "recipe": to_json(recipe), "out": str(out), "calibration": ""}
        began = time.monotonic()
        outcome = Workers(Limits(memory_bytes=1 << 40, threads=threads)).run("quantize", arguments, log=home / "log")
        yield Row(name, parameters(sizes), recipe.name, time.monotonic() - began, outcome.peak_rss_bytes)
        shutil.rmtree(home)


def exponent(found: list[Row]) -> float:
    """e of seconds ~ parameters^e, fitted over all rows."""
    sizes, seconds = (
        [math.log(value) for value in values]
        for values in zip(*((r.parameters, r.seconds) for r in found), strict=True)
    )
    return float(np.polyfit(sizes, seconds, 1)[0])


def tensors(sizes: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a llama's parameters, its head tied."""
    hidden, wide = sizes["hidden_size"], sizes["intermediate_size"]
    shared = hidden // sizes["num_attention_heads"] * sizes["num_key_value_heads"]
    yield "model.embed_tokens.weight", (VOCABULARY, hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(sizes["num_hidden_layers"]):
        home = f"model.layers.{layer}."
        yield f"{home}input_layernorm.weight", (hidden,)
        yield f"{home}post_attention_layernorm.weight", (hidden,)
        for name, outputs, inputs in (
            ("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", shared, hidden),
            ("self_attn.v_proj", shared, hidden), ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", wide, hidden), ("mlp.up_proj", wide, hidden), ("mlp.down_proj", hidden, wide),
        ):  # fmt: skip
            yield f"{home}{name}.weight", (outputs, inputs)


def parameters(sizes: Mapping[str, int]) -> int:
    """All of them."""
    return sum(math.prod(shape) for _, shape in tensors(sizes))


def random_reference(sizes: Mapping[str, int], home: Path) -> Reference:
    """A checkpoint of random float16 numbers with SmolLM2's tokenizer, loaded as any other."""
    from safetensors.numpy import save_file

    model, tokenizer = home / "model", home / "tokenizer"
    for directory in (model, tokenizer, home / "reference"):
        directory.mkdir(parents=True)
    known = load(fetch(parse("smollm2-135m-instruct"), CACHE / "downloads"), tokenizer)
    config = json.loads((known.directory / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**config, **sizes, "head_dim": sizes["hidden_size"] // sizes["num_attention_heads"]})
    )
    shutil.copyfile(known.directory / "generation_config.json", model / "generation_config.json")
    shutil.copytree(known.tokenizer_dir, model, dirs_exist_ok=True)
    random = np.random.default_rng(0)
    values = {
        name: np.ones(shape, np.float16) if len(shape) == 1
        else (random.standard_normal(shape, np.float32) * np.float32(0.02)).astype(np.float16)
        for name, shape in tensors(sizes)
    }  # fmt: skip
    save_file(values, model / "model.safetensors")
    return load(fetch(parse(str(model)), CACHE / "downloads"), home / "reference")
