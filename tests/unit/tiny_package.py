"""A real package of a toy model, written by the real package stage in a second, without torch.

What a target would have made is a small file of numbers; everything else (manifest, SBOM, reports, tokenizer, golden
files, licence) is what a build writes. `main` makes the fixtures that later versions must verify.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from kobako.pipeline.codec import to_json
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
from kobako.pipeline.embeddings import TABLE_FILE, TableLayout, write_table
from kobako.pipeline.encoder.standard import write_answers, write_facts
from kobako.pipeline.heads import Head, write_head
from kobako.pipeline.package import Contents, Proven, package
from kobako.pipeline.weights import WEIGHTS_FILE, round_to_nearest, write_weights

VOCABULARY = 300
TARGETS = ("executorch", "litert")
LICENCE_TEXT = "The toy licence: do as you like.\n"
NOTICE_TEXT = "Toy model, made by nobody.\n"


def write_package(work: Path, out: Path, **changes: Any) -> Path:
    """Write the package at `out`; `work` takes what the stages before would have left. `changes` go to Contents."""
    return package(contents(work, **changes), out, allow_failing=False)


def kept_packages(work: Path, out: Path) -> list[Path]:
    """The packages that each version keeps: one as most are, one with all that a decoder's may have, an encoder's."""
    makers = {"toy-int8": contents, "toy-int4": full_contents, "toy-embeds-int8": encoder_contents}
    return [package(make(work / name), out / name) for name, make in makers.items()]


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


def full_contents(work: Path) -> Contents:
    """As `contents`, with everything a manifest may say of a decoder: an adapter, a recipe mixed by measurement on text
    of the user's own, and a table that one target is fed from.
    """
    made = contents(work)
    layout = TableLayout(
        model="toy", parameter="model.embed_tokens_per_layer.weight", rows=64, layers=2, width=4, bits=8, multiplier=2.0
    )
    fed, other = made.parts
    values = np.linspace(-1, 1, 64 * 8, dtype=np.float32).reshape(64, 8)
    write_table(fed.exported.directory / TABLE_FILE, layout, [round_to_nearest(values, 8, 4)])
    recipe = replace(
        RECIPES["int4"], wide=("model.layers.0.mlp.up_proj.weight",), loss_limit_nats=0.04, calibration_sha256="7a" * 32
    )
    return replace(
        made,
        source=replace(made.source, adapter=replace(source(work / "adapter", "MIT"), name="french")),
        quantized=replace(made.quantized, recipe=recipe),
        parts=(replace(fed, exported=replace(fed.exported, table=TABLE_FILE)), other),
    )


def encoder_contents(work: Path) -> Contents:
    """The same of an encoder that embeds texts, with golden files of its own kind."""
    head = Head(task="embed", size=4, longest_tokens=16, normalize=True)
    made = contents(work)
    write_head(head, made.quantized.directory)
    facts = {"noise": 0.0, "float_distance": 0.0, "quality_distance": 0.01, "quality_agreement": 1.0}
    home = work / "answers"
    home.mkdir()
    ids, answers = np.array([[5, 6]], np.int32), np.full((1, 4), 0.5, np.float32)
    for kind in ("float", "int8-dynamic"):
        write_answers(home, kind, ids, np.array([2], np.int32), answers)
    told = {"texts": ["w5 w6"], "weight_digests": {}, "original": {}, "head": to_json(head)}
    write_facts(home, told | {"float": facts, "int8-dynamic": facts})
    compared = {"distance": 1e-6, "largest_error": 1e-6, "texts": 1}
    figures = {"fidelity": {"texts": compared}, "quality": facts | {"found": 1, "questions": 1}}
    return replace(
        made,
        quantized=replace(made.quantized, name="toy-embeds", model_type="bert"),
        expectations=Expectations(directory=home, activations=("float32",)),
        tasks=(Task(name="embed", output="vector"),),
        parts=tuple(
            replace(part, exported=replace(part.exported, kind="encoder"), report=replace(part.report, figures=figures))
            for part in made.parts
        ),
    )


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
    directory.mkdir(parents=True)
    write_tokenizer(directory / "tokenizer")
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 64}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    matrix = np.linspace(-1, 1, 64 * 16, dtype=np.float32).reshape(64, 16)
    tensors = {"model.layers.0.mlp.up_proj.weight": round_to_nearest(matrix, 8, None)}
    write_weights(directory / WEIGHTS_FILE, tensors.items())
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
