"""Two real models whose weights lie on no 4-bit grid.

MiniLM's are float16 as they were trained. Of SmolLM2 there is only a file in 4 bits; each channel between two layers is
multiplied by a random factor on one side and divided by it on the other, which changes no answer of the model and
leaves no two neighbouring weights on a common grid.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kobako.pipeline.contracts import FloatArray, Reference
from kobako.pipeline.fetch import fetch, parse
from kobako.pipeline.reference.load import load
from kobako.pipeline.reference.weights import open_reference

SPREAD = 0.35
"""Standard deviation of a factor's logarithm."""
CACHE = Path(".cache/rounding")


def encoder(work: Path) -> Reference:
    """all-MiniLM-L6-v2, which embeds texts."""
    return _loaded("minilm-l6-v2", work / "minilm")


def decoder(work: Path) -> Reference:
    """SmolLM2-135M-Instruct with rescaled channels."""
    from safetensors.numpy import save_file

    original = _loaded("smollm2-135m-instruct", work / "smollm2")
    home = work / "rescaled"
    home.mkdir(parents=True)
    config = json.loads((original.directory / "config.json").read_text())
    with open_reference(original) as stored:
        tensors = {name: np.array(stored[name], np.float32) for name in stored}
    rescale(tensors, config)
    save_file(tensors, home / "model.safetensors")
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(original.directory / name, home / name)
    shutil.copytree(original.tokenizer_dir, home, dirs_exist_ok=True)
    return _loaded(str(home), work / "rescaled-reference")


SOURCES: dict[str, Callable[[Path], Reference]] = {"smollm2": decoder, "minilm": encoder}


def _loaded(model: str, out: Path) -> Reference:
    out.mkdir(parents=True)
    return load(fetch(parse(model), CACHE / "downloads"), out)


def rescale(tensors: dict[str, FloatArray], config: dict[str, int]) -> None:
    """Move random factors between what writes a channel and what reads it, in the `tensors` of a llama."""
    random = np.random.default_rng(0)
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]

    def factors(count: int) -> FloatArray:
        drawn: FloatArray = np.exp(SPREAD * random.standard_normal(count)).astype(np.float32)
        return drawn

    for layer in range(config["num_hidden_layers"]):
        home = f"model.layers.{layer}."
        for norm, readers in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            scale = factors(config["hidden_size"])
            tensors[f"{home}{norm}.weight"] *= scale
            for reader in readers:
                tensors[f"{home}{reader}.weight"] /= scale
        scale = factors(config["intermediate_size"])
        tensors[f"{home}mlp.up_proj.weight"] *= scale[:, None]
        tensors[f"{home}mlp.down_proj.weight"] /= scale
        values = tensors[f"{home}self_attn.v_proj.weight"]
        scale = factors(len(values))
        values *= scale[:, None]
        by_head = np.repeat(scale.reshape(shared, -1), heads // shared, axis=0)
        tensors[f"{home}self_attn.o_proj.weight"] /= by_head.reshape(-1)
