"""Core ML programs whose layers are copies of a few converted ones, against those converted whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import Exported, ExportOptions, Quantized, no_progress
from kobako.targets.coreml import PACKAGE, TARGET

from tests.conftest import write_tiny_tokenizer
from tests.families import SHAPES, Shape, make

pytestmark = pytest.mark.heavy

OPTIONS = ExportOptions(context_tokens=64, prefill_tokens=16)
IDS = [(7 * i * i + 3 * i + 11) % 384 for i in range(60)]


def deeper(model_type: str, **options: Any) -> Shape:
    """The tiny configuration of a family with more layers."""
    shape = next(one for one in SHAPES if one.model_type == model_type)
    return replace(shape, options={**shape.options, **options})


def structure(artifact: Exported) -> dict[str, Any]:
    """What every function is made of: how many operations of each type and type of value, inputs, states."""
    from kobako.targets.coreml.mil.program import read_package

    program = read_package(artifact.directory / PACKAGE)
    for one in program.functions.values():
        made = [name for operation in one.operations for name, _ in operation.outputs]
        assert len(made) == len(set(made))
    return {
        name: (
            Counter((o.type, len(o.inputs), o.outputs[0][1] if o.outputs else None) for o in one.operations),
            list(one.inputs.items()), list(one.states.items()), one.outputs,
        )
        for name, one in program.functions.items()
    }  # fmt: skip


def answers(artifact: Exported) -> np.ndarray:
    runtime = TARGET.runtime(artifact)
    return np.stack([runtime.feed(IDS[:30]), runtime.feed(IDS[30:31]), runtime.feed(IDS[31:])])


def export(quantized: Quantized, out: Path) -> Exported:
    out.mkdir()
    return TARGET.export(quantized, OPTIONS, out, no_progress)


@pytest.mark.parametrize(
    ("shape", "converted"),
    [
        (deeper("llama", num_hidden_layers=5), 2),
        (deeper("qwen2", num_hidden_layers=4), 2),
        (
            deeper(
                "gemma3_text", num_hidden_layers=8,
                layer_types=[*["sliding_attention"] * 3, "full_attention"] * 2,
            ),
            4,
        ),
    ],
    ids=["llama", "qwen2", "gemma3_text"],
)  # fmt: skip
def test_copied_layers_say_and_are_what_converted_ones_are(
    shape: Shape, converted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kobako.targets.coreml import prototype

    quantized = make(tmp_path / "model", shape, "int4", write_tiny_tokenizer)
    few = export(quantized, tmp_path / "few")
    monkeypatch.setattr(prototype, "plan", lambda *_: None)
    whole = export(quantized, tmp_path / "whole")
    assert few.details["converted_layers"] == converted
    assert whole.details["converted_layers"] == shape.options["num_hidden_layers"]
    assert structure(few) == structure(whole)
    np.testing.assert_array_equal(answers(few), answers(whole))


def test_layers_that_turn_out_to_differ_are_all_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kobako.targets.coreml import replicate

    quantized = make(tmp_path / "model", deeper("llama", num_hidden_layers=4), "int4", write_tiny_tokenizer)
    monkeypatch.setattr(replicate.Layers, "fingerprint", lambda _self, layer: [layer])
    made = export(quantized, tmp_path / "out")
    assert made.details["converted_layers"] == 4
    assert not any(name.startswith("kobako_mark") for name, _ in structure(made)["prefill"][1])
    assert np.isfinite(answers(made)).all()
