"""Settings of strangers that would take for ever, or everything: refused with the reason. `test_hostile` tries many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import Source
from kobako.pipeline.errors import IntegrityError, UnsupportedModel
from kobako.pipeline.reference.adapter import read_adapter
from kobako.pipeline.reference.heads import labels_of
from safetensors.numpy import save_file

PATH = "model.layers.0.self_attn." + "a" * 40 + ".q_proj"


def adapter(home: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((2, 8), (4, 2)), **settings: Any) -> Source:
    (home / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4, **settings}))
    halves = zip(("lora_A", "lora_B"), shapes, strict=True)
    tensors = {f"base_model.model.{PATH}.{half}.weight": np.ones(shape, np.float32) for half, shape in halves}
    save_file(tensors, home / "adapter_model.safetensors")
    return Source(
        name="x", origin="x", revision="x", directory=home, files=(), format="safetensors", licence="MIT"
    )  # fmt: skip


@pytest.mark.parametrize("pattern", [r"(a+)+!", r"(a|a)*!", r".*a*a*a*!", "(a{9}){9}", "a" * 257])
def test_a_pattern_that_could_take_for_ever_is_not_tried(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(IntegrityError, match="could take for ever"):
        read_adapter(adapter(tmp_path, alpha_pattern={pattern: 8}))


@pytest.mark.parametrize("settings", [
    {"alpha_pattern": {"(": 8}}, {"alpha_pattern": ["q_proj"]}, {"lora_alpha": "much"}, {"lora_alpha": 1e999},
    {"alpha_pattern": {"q_proj": None}},
])  # fmt: skip
def test_settings_that_are_none_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="cannot be merged"):
        read_adapter(adapter(tmp_path, **settings))


@pytest.mark.parametrize("shapes", [((0, 8), (4, 0)), ((3, 8), (4, 2)), ((8,), (4, 2))])
def test_halves_that_do_not_fit_are_refused(tmp_path: Path, shapes: Any) -> None:
    with pytest.raises(IntegrityError, match="halves of the shapes"):
        read_adapter(adapter(tmp_path, shapes))


def test_patterns_as_peft_writes_them_are_matched(tmp_path: Path) -> None:
    read = read_adapter(adapter(tmp_path, alpha_pattern={r"layers\.[0-9]+\..*q_proj": 32}))
    assert read.scales == {f"{PATH}.weight": 16.0}


def test_a_number_of_labels_that_no_model_has() -> None:
    with pytest.raises(UnsupportedModel, match="2,147,483,648 labels"):
        labels_of({"num_labels": 2**31})
