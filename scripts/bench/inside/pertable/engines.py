"""A random Gemma 4 written, quantized and exported; each artifact decodes in its runtime, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from kobako import targets
from kobako.pipeline.contracts import RECIPES, ExportOptions, Quantized, no_progress

from . import memory

CONTEXT = 256
DECODED = 100
FILES = {"litert": "model.tflite", "executorch": "model.pte", "coreml": "embeddings.safetensors"}


def write_model(home: Path, shape: Mapping[str, int], recipe: str) -> Quantized:
    """A quantized model of random numbers in `home`; its table is written as it is drawn."""
    from kobako.pipeline import families
    from kobako.pipeline.embeddings import TABLE_FILE, write_table
    from kobako.pipeline.quantize import quantize_all, table_layout
    from kobako.pipeline.reference.eager import empty_model
    from kobako.pipeline.scheme import parameter_roles
    from kobako.pipeline.weights import WEIGHTS_FILE, write_weights
    from transformers import AutoConfig

    from .rows import random_rows

    layers, family = shape["layers"], families.get("gemma4_text")
    kinds = ["full_attention" if (i + 1) % 5 == 0 or i + 1 == layers else "sliding_attention" for i in range(layers)]
    config = AutoConfig.for_model(
        "gemma4_text", vocab_size=shape["rows"], vocab_size_per_layer_input=shape["rows"], hidden_size=shape["hidden"],
        intermediate_size=4 * shape["hidden"], num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=1,
        head_dim=64, global_head_dim=128, hidden_size_per_layer_input=shape["width"], num_kv_shared_layers=0,
        layer_types=kinds, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = empty_model(config)
    random = np.random.default_rng(0)
    roles = {name: role for name, role in parameter_roles(model, family).items() if role != "table"}
    values = {
        name: random.standard_normal(tuple(model.get_parameter(name).shape), np.float32) * np.float32(0.05)
        for name in roles
    }
    home.mkdir()
    config.save_pretrained(home)
    (home / "generation_config.json").write_text('{"eos_token_id": [2]}')
    write_tokenizer(home / "tokenizer")
    write_weights(home / WEIGHTS_FILE, quantize_all(values, roles, RECIPES[recipe], no_progress))
    assert family.per_layer_table is not None
    layout = table_layout("random-gemma4", model, family.per_layer_table, RECIPES[recipe])
    write_table(home / TABLE_FILE, layout, random_rows(layout))
    return Quantized(name="random-gemma4", directory=home, recipe=RECIPES[recipe], model_type="gemma4_text")


def write_tokenizer(home: Path) -> None:
    """As small as one may be: no text is read here."""
    from tokenizers import Tokenizer, models

    home.mkdir()
    words = {"<unk>": 0, "<bos>": 1, "<eos>": 2, "word": 3}
    Tokenizer(models.WordLevel(words, unk_token="<unk>")).save(str(home / "tokenizer.json"))
    (home / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "eos_token": "<eos>"}))


def measure(work: Path, shape: Mapping[str, int], recipe: str, names: list[str]) -> dict[str, Any]:
    """Figures of each target."""
    quantized = write_model(work / "quantized", shape, recipe)
    found = {}
    for name in names:
        out = work / name
        out.mkdir()
        made = child("export", name, str(quantized.directory), recipe, str(out))
        found[name] = {**made, **child("decode", name, str(out), recipe)}
    return found


def child(*arguments: str) -> dict[str, Any]:
    """Run a step in a process of its own; its figures."""
    command = [*unlocked(), sys.executable, "-m", "pertable.engines", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def unlocked() -> list[str]:
    """What takes from root the right to lock memory: ExecuTorch's loader uses it, and an app has it nowhere."""
    capable = os.geteuid() == 0 and shutil.which("setpriv")
    return ["setpriv", "--inh-caps=-ipc_lock", "--bounding-set=-ipc_lock"] if capable else []


def export(name: str, quantized: str, recipe: str, out: str) -> dict[str, Any]:
    """Write the artifact."""
    source = Quantized(
        name="random-gemma4", directory=Path(quantized), recipe=RECIPES[recipe], model_type="gemma4_text"
    )
    started = time.perf_counter()
    options = ExportOptions(context_tokens=CONTEXT, prefill_tokens=64)
    targets.get(name).export(source, options, Path(out), no_progress)
    return {"export_s": round(time.perf_counter() - started, 1), "export_peak_bytes": memory.peak_bytes()}


def decode(name: str, out: str, recipe: str) -> dict[str, Any]:
    """Decode tokens that are all different; what of the file with the table is in memory."""
    from kobako.pipeline.contracts import Exported
    from kobako.pipeline.embeddings import TABLE_FILE

    home = Path(out)
    table = TABLE_FILE if name == "coreml" else None
    files = ("model.pte",) if name == "executorch" else ()
    target = targets.get(name)
    exported = Exported(
        target=name, directory=home, files=files, activations=target.activations(RECIPES[recipe]),
        context_tokens=CONTEXT, table=table,
    )  # fmt: skip
    path = home / FILES[name]
    memory.forget(path)
    runtime = target.runtime(exported)
    runtime.feed([5])
    loaded, private = memory.resident_bytes(path), memory.private_bytes()
    started = time.perf_counter()
    for number in range(DECODED):
        runtime.feed([1000 + 37 * number])
    spent = time.perf_counter() - started
    return {
        "file_bytes": path.stat().st_size,
        "resident_after_load": loaded,
        "resident_after_100_tokens": memory.resident_bytes(path),
        "private_bytes": memory.private_bytes(),
        "private_growth": memory.private_bytes() - private,
        "ms_per_token": round(1e3 * spent / DECODED, 2),
    }


if __name__ == "__main__":
    STEPS = {"export": export, "decode": decode}
    print(json.dumps(STEPS[sys.argv[1]](*sys.argv[2:])))
