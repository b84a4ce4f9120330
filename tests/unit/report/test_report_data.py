"""The data these tests are made of has the shape that `package.report_data` makes, so that neither can drift alone."""

from __future__ import annotations

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
from kobako.pipeline.package import Contents, Proven, report_data
from kobako.pipeline.report import model_card, render_html
from kobako.pipeline.weights import WEIGHTS_FILE, write_weights


def contents(home: Path) -> Contents:
    """The smallest package: one target, one file, one check."""
    (home / "model.pte").write_bytes(b"12345")
    (home / "config.json").write_text('{"model_type": "llama"}')
    write_weights(home / WEIGHTS_FILE, [("model.norm.weight", np.ones(4, np.float32))])
    recipe = RECIPES["int8"]
    check = Check(part="weights", name="integers", value="1 tensor", demand="identical", passed=True)
    report = Report(target="executorch", recipe="int8", activations="float32", checks=(check,), figures={})
    measurement = Measurement(
        target="executorch", engine="runner", load_s=1, first_token_s=1, prefill_tokens_per_s=1, decode_tokens_per_s=1,
        peak_rss_bytes=1, bandwidth_share=0.5, threads=2,
    )  # fmt: skip
    exported = Exported(
        target="executorch", directory=home, files=("model.pte",), activations="float32", context_tokens=64
    )
    return Contents(
        build_id="0",
        source=Source(
            name="m", origin="hf://a/m", revision="0", directory=home,
            files=(SourceFile(path="f", size_bytes=1, sha256="0"),),
            format="safetensors", licence="MIT",
        ),
        quantized=Quantized(name="m", directory=home, recipe=recipe, model_type="llama"),
        expectations=Expectations(directory=home, activations=("float32",)),
        options=ExportOptions(),
        tasks=(Task(name="chat"),),
        parts=(
            Proven(
                title="ExecuTorch", exported=exported, export_key="", report=report, measurement=measurement,
                build_seconds=1, peak_rss_bytes=1, vendor_versions={},
            ),
        ),
        failures={},
        stages=({"stage": "load", "seconds": 1.0, "cached": False, "peak_rss_bytes": 1},),
    )  # fmt: skip


def shape(value: Any, *open_ended: str) -> Any:
    """Keys of nested mappings; what lies under an open-ended key is not looked into, lists by their first item."""
    if isinstance(value, dict):
        return {key: None if key in open_ended else shape(item, *open_ended) for key, item in value.items()}
    return [shape(item, *open_ended) for item in list(value)[:1]] if isinstance(value, list | tuple) else None


def test_the_fixture_has_the_shape_of_the_real_data(proven: dict[str, Any], tmp_path: Path) -> None:
    real = report_data(contents(tmp_path))
    proven["targets"] = {"executorch": proven["targets"]["executorch"]}
    free = ("figures", "files", "vendor_versions", "details", "weights_bytes_by_part")
    mine, theirs = shape(proven, *free), shape(real, *free)
    for data in (mine["source"], theirs["source"]):
        data["files"] = None
    assert mine == theirs
    assert shape(proven["source"]["files"][0]) == shape(real["source"]["files"][0])


def test_a_cache_in_int8_is_named(proven: dict[str, Any]) -> None:
    for words in (render_html(proven), model_card(proven)):
        assert "keys and values" not in words
    proven["kv_cache"] = "int8"
    for words in (render_html(proven), model_card(proven)):
        assert "1024 tokens, keys and values in int8 (executorch: 47.2 MB" in words


def test_the_smallest_real_data_can_be_shown(tmp_path: Path) -> None:
    data = report_data(contents(tmp_path))
    assert "ExecuTorch is proven to say what the model says." in render_html(data)
    assert 'base_model: "a/m"' in model_card(data)
