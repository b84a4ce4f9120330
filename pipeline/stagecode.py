"""What a stage's result depends on: its inputs, the digest of its code, the versions of its libraries.

Each `…_inputs` function gives the JSON value from which the cache makes the key; build and ``kobako plan`` share them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from kobako import targets

from .cache import code_version
from .codec import to_json
from .contracts import ExportOptions, Recipe, Source
from .heads import EncoderTask
from .prooftext import WINDOW_TOKENS
from .protocols import Target

ROOT = Path(__file__).parent
SHARED = (
    "contracts.py",
    "codec.py",
    "protocols.py",
    "weights.py",
    "rows.py",
    "tensorfile.py",
    "pieces.py",
    "embeddings",
    "families",
    "heads.py",
)
CODE: Mapping[str, tuple[str, ...]] = {
    "load": ("reference", "seq2seq", "tasks.py", "tokens.py", "templates.py", "rendering.py"),
    "quantize": (
        "reference",
        "quantize.py",
        "scheme.py",
        "smooth.py",
        "watch.py",
        "blocks.py",
        "calibrate.py",
        "calibration.py",
        "prooftext.py",
        "gptq.py",
        "tune.py",
        "tokens.py",
        "templates.py",
        "rendering.py",
        "texts",
    ),
    "sensitivity": (
        "reference",
        "sensitivity.py",
        "mixture.py",
        "scheme.py",
        "smooth.py",
        "watch.py",
        "calibration.py",
        "prooftext.py",
        "blocks.py",
        "metrics.py",
        "tokens.py",
        "templates.py",
        "rendering.py",
        "texts",
    ),
    "original": (
        "reference",
        "reading.py",
        "continuation.py",
        "prooftext.py",
        "logits.py",
        "tokens.py",
        "templates.py",
        "rendering.py",
        "texts",
    ),
    "expect": (
        "reference",
        "expect.py",
        "reading.py",
        "continuation.py",
        "encoder",
        "seq2seq",
        "tasks.py",
        "standard.py",
        "prooftext.py",
        "metrics.py",
        "logits.py",
        "tokens.py",
        "templates.py",
        "rendering.py",
        "texts",
    ),
    "export": (
        "reference",
        "seq2seq",
        "tasks.py",
        "generate.py",
        "tokens.py",
        "templates.py",
        "rendering.py",
    ),
    "validate": (
        "validate",
        "encoder",
        "seq2seq",
        "tasks.py",
        "standard.py",
        "prooftext.py",
        "metrics.py",
        "logits.py",
        "tokens.py",
        "templates.py",
        "rendering.py",
        "generate.py",
    ),
    "measure": (
        "measure.py",
        "encoder",
        "seq2seq",
        "prooftext.py",
        "tokens.py",
        "templates.py",
        "rendering.py",
        "generate.py",
        "texts",
    ),
    "package": (
        "package.py",
        "leftout.py",
        "mixture.py",
        "metrics.py",
        "logits.py",
        "tokens.py",
        "templates.py",
        "rendering.py",
        "kvcache.py",
        "estimate.py",
        "manifest.py",
        "versioned.py",
        "sbom.py",
        "licences.py",
        "standard.py",
        "report",
        "tasks.py",
        "seq2seq",
        "version.py",
    ),
}
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "load": ("tokenizers", "gguf"),
    "quantize": ("gguf", "torch", "transformers"),
    "sensitivity": ("gguf", "torch", "transformers"),
    "original": ("gguf", "torch", "transformers", "tokenizers"),
    "expect": ("torch", "transformers", "tokenizers"),
    "export": ("torch", "transformers"),
}


@cache
def code_of(stage: str, target: str | None = None) -> str:
    """Digest of a stage's code, its target's code included, and of the versions of the libraries it leans on."""
    places = [ROOT / name for name in (*SHARED, *CODE[stage])]
    if target:
        places.append(ROOT.parent / "targets" / target)
    versions = "+".join(f"{name}-{_version(name)}" for name in LIBRARIES.get(stage, ()))
    return f"{code_version(*places)}+{versions}" if versions else code_version(*places)


def vendor_versions(target: Target) -> Mapping[str, str]:
    """Versions of a target's vendor packages, by distribution name."""
    return {name: _version(name) for name in map(_distribution, target.vendor_modules)}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


@cache
def _distribution(module: str) -> str:
    """The distribution that provides a top-level module; usually its own name with dashes."""
    name = module.partition(".")[0]
    guess = name.replace("_", "-")
    if _version(guess) != "absent":
        return guess
    return next(iter(importlib.metadata.packages_distributions().get(name, [guess])))


def load_inputs(source: Source, task: EncoderTask | None) -> dict[str, Any]:
    """Of the stage ``load``; the task matters to encoders only."""
    files = [[file.path, file.sha256] for file in source.all_files]
    asked = {"task": task} if task else {}
    taken = {"slice": source.slice} if source.slice else {}
    return {"name": source.name, "files": files, "code": code_of("load"), **asked, **taken}


def quantize_inputs(load_key: str, recipe: Recipe) -> dict[str, Any]:
    """Of the stage ``quantize``."""
    return {"reference": load_key, "recipe": to_json(recipe), "code": code_of("quantize")}


def sensitivity_inputs(load_key: str, quantize_key: str) -> dict[str, Any]:
    """Of the stage ``sensitivity``; the second key is that of the model with everything at 4 bits."""
    return {"reference": load_key, "narrow": quantize_key, "code": code_of("sensitivity")}


def original_inputs(load_key: str, context_tokens: int) -> dict[str, Any]:
    """Of the stage ``original``, which only decoders have: one for all recipes, and all contexts beyond a window."""
    return {"reference": load_key, "context": min(context_tokens, WINDOW_TOKENS), "code": code_of("original")}


def expect_inputs(
    load_key: str, quantize_key: str, recipe: Recipe, options: ExportOptions, names: tuple[str, ...]
) -> dict[str, Any]:
    """Of the stage ``expect``: one result for all targets that are built together."""
    return {
        "reference": load_key,
        "quantized": quantize_key,
        "activations": sorted({targets.get(name).activations(recipe) for name in names}),
        "context": options.context_tokens,
        "kv_cache": options.kv_cache,
        "code": code_of("expect"),
    }


def export_inputs(quantize_key: str, options: ExportOptions, name: str) -> dict[str, Any]:
    """Of the stage ``export`` of one target."""
    return {
        "target": name,
        "quantized": quantize_key,
        "options": to_json(options),
        "code": code_of("export", name),
        "vendors": dict(vendor_versions(targets.get(name))),
    }


def validate_inputs(export_key: str, expect_key: str, name: str) -> dict[str, Any]:
    """Of the stage ``validate`` of one target."""
    return {"export": export_key, "expect": expect_key, "code": code_of("validate", name)}


def measure_inputs(export_key: str, name: str, machine: str) -> dict[str, Any]:
    """Of the stage ``measure`` of one target: timings belong to a machine."""
    return {"export": export_key, "machine": machine, "code": code_of("measure", name)}
