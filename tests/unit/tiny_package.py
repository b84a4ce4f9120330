"""A real package of a toy model, written by the real package stage in a second, without torch.

What a target would have made is a small file of numbers; everything else (manifest, SBOM, reports, tokenizer, golden
files, licence) is what a build writes. `main` makes the fixtures that later versions must verify.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from kobako.pipeline.contracts import (
    RECIPES,
    Check,
    Expectations,
    Exported,
    ExportOptions,
    Measurement,
    Quantized,
    Report,
    Source,
    SourceFile,
    Task,
)
from kobako.pipeline.package import Contents, Proven, package

VOCABULARY = 300
TARGETS = ("executorch", "litert")
LICENCE_TEXT = "The toy licence: do as you like.\n"
NOTICE_TEXT = "Toy model, made by nobody.\n"


def write_package(work: Path, out: Path, **changes: Any) -> Path:
    """Write the package at `out`; `work` takes what the stages before would have left. `changes` go to Contents."""
    return package(contents(work, **changes), out, allow_failing=False)


def contents(work: Path, **changes: Any) -> Contents:
    """What the package stage is given."""
    quantized = _quantized(work / "quantized")
    values: dict[str, Any] = {
        "build_id": "0123456789abcdef" * 2,
        "source": source(work / "source"),
        "quantized": quantized,
        "expectations": _expectations(work / "expectations"),
        "options": ExportOptions(context_tokens=64),
        "tasks": (Task(name="chat", messages=({"role": "user", "content": "{text}"},)),),
        "parts": tuple(_proven(work / target, target) for target in TARGETS),
        "stages": (),
        "failures": {},
    }
    return Contents(**(values | changes))


def source(directory: Path, licence: str = "Apache-2.0") -> Source:
    """A model as it was obtained, with its licence and notice."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {"LICENSE": LICENCE_TEXT, "NOTICE": NOTICE_TEXT, "model.safetensors": "weights"}
    for name, text in texts.items():
        (directory / name).write_text(text)
    files = tuple(
        SourceFile(path=name, size_bytes=len(text), sha256=hashlib.sha256(text.encode()).hexdigest())
        for name, text in texts.items()
    )
    return Source(
        name="toy", origin="hf://example/toy", revision="4f" * 20, directory=directory, files=files,
        format="safetensors", licence=licence,
    )  # fmt: skip


def _quantized(directory: Path) -> Quantized:
    from kobako.pipeline.weights import WEIGHTS_FILE, round_to_nearest, write_weights

    directory.mkdir(parents=True)
    write_tokenizer(directory / "tokenizer")
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 64}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    matrix = np.linspace(-1, 1, 64 * 16, dtype=np.float32).reshape(64, 16)
    tensors = {"model.layers.0.mlp.up_proj.weight": round_to_nearest(matrix, 8, None)}
    write_weights(directory / WEIGHTS_FILE, tensors)
    return Quantized(name="toy", directory=directory, recipe=RECIPES["int8"], model_type="llama")


def write_tokenizer(directory: Path) -> None:
    """A tokenizer of 64 words, into a new directory."""
    from tokenizers import Tokenizer, models

    directory.mkdir()
    words = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2} | {f"w{i}": i for i in range(3, 64)}
    Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>")).save(str(directory / "tokenizer.json"))
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    config = {"eos_token": "<|im_end|>", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def _expectations(directory: Path) -> Expectations:
    directory.mkdir(parents=True)
    random = np.random.default_rng(0)
    np.save(directory / "ids.npy", np.arange(2, dtype=np.int32)[None])
    (directory / "expect.json").write_text(json.dumps({"prompts": ["w5 w6"], "stop_ids": [2], "float": {}}))
    for kind in ("float", "int8-dynamic"):
        np.save(directory / f"logits-{kind}.npy", random.normal(size=(1, 2, VOCABULARY)).astype(np.float32))
        np.save(directory / f"keys-{kind}.npy", np.zeros((1, 2, 1, 4), np.float32))
        np.save(directory / f"first-logits-{kind}.npy", np.zeros((1, 8), np.float32))
    return Expectations(directory=directory, activations=("float32",))


def _proven(directory: Path, target: str) -> Proven:
    directory.mkdir(parents=True)
    (directory / "model.bin").write_bytes(np.arange(256, dtype=np.float32).tobytes() + target.encode())
    (directory / "tokenizer.json").write_text("{}")
    check = Check(part="fidelity", name="decode KL", value="1.0e-06 nats", demand="≤ 0.001", passed=True)
    compared = {"positions": 2, "kl_nats": 1e-6, "kl_nats_max": 2e-6, "top1": 1.0, "kl_nats_per_token": [0.0, 2e-6]}
    quality = {
        "kl_nats": 0.01, "kl_nats_per_token": [0.01, 0.01], "top1": 0.95, "perplexity": 21.0, "perplexity_ratio": 1.01,
    }  # fmt: skip
    figures = {
        "fidelity": {
            "decode": compared, "prefill": compared, "key_error_per_layer": None, "first_departing_layer": "",
        },
        "quality": quality,
        "greedy": [],
    }  # fmt: skip
    return Proven(
        title=target,
        exported=Exported(
            target=target, directory=directory, files=("model.bin", "tokenizer.json"), activations="float32",
            context_tokens=64,
        ),
        export_key="",
        report=Report(target=target, recipe="int8", activations="float32", checks=(check,), figures=figures),
        measurement=Measurement(
            target=target, engine="toy 1.0", load_s=0.1, first_token_s=0.1, prefill_tokens_per_s=100.0,
            decode_tokens_per_s=50.0, peak_rss_bytes=10_000_000, bandwidth_share=0.5, threads=2,
        ),
        build_seconds=1.0,
        peak_rss_bytes=10_000_000,
        vendor_versions={target: "1.0"},
    )  # fmt: skip
