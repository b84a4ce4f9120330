"""The default recipe on architectures that are not laid out as llama is: calibrated, exported, and what was meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako import targets
from kobako.pipeline.contracts import RECIPES, ExportOptions, Quantized, Reference, Source, SourceFile, no_progress
from kobako.pipeline.weights import QuantizedTensor, open_weights

from tests.conftest import write_tiny_tokenizer
from tests.contract.test_targets import need, standard_of
from tests.families import SHAPES, Shape, config_of, random_values

pytestmark = pytest.mark.heavy

Change = Callable[[str, np.ndarray], np.ndarray]
OPTIONS = ExportOptions(context_tokens=256, prefill_tokens=64)
TARGETS = {
    "minicpm3": "executorch",
    "openelm": "litert",
    "phi3": "coreml",  # Phi-4-multimodal's text part
    "gemma3n_text": "litert",
    "gemma4_text": "executorch",
}
"""One target each: what differs between targets is tested with other recipes."""
IN_GROUPS: Mapping[str, Mapping[str, Any]] = {
    "minicpm3": {"q_lora_rank": 64},
    "openelm": {
        "per_layer_config": {
            "0": {"num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 64},
            "1": {"num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 192},
        }
    },
}
"""Widths that groups of 32 divide; the shapes of the other tests have some that they do not."""


def calibrated(home: Path, shape: Shape, change: Change = lambda _name, value: value) -> Quantized:
    """A random model of `shape`, its weights in a file as published ones are, quantized by the default recipe."""
    from kobako.pipeline import families
    from kobako.pipeline.quantize import quantize
    from kobako.pipeline.reference.eager import empty_model
    from safetensors.numpy import save_file

    config, family = config_of(shape), families.get(shape.model_type)
    write_tiny_tokenizer(home / "tokenizer")
    config.save_pretrained(home)
    (home / "generation_config.json").write_text('{"eos_token_id": [2]}')
    parameters = empty_model(config).named_parameters()
    values = {n: change(n, random_values(n, value.shape, family)) for n, value in parameters}
    save_file(values, home / "model.safetensors")
    files = (SourceFile(path="model.safetensors", size_bytes=0, sha256=""),)
    source = Source(
        name="tiny", origin="file", revision="r", directory=home, files=files, format="safetensors", licence="MIT"
    )
    reference = Reference(name="tiny", directory=home, source=source, model_type=shape.model_type)
    (home / "quantized").mkdir()
    return quantize(reference, RECIPES["int4"], home / "quantized")


@pytest.mark.parametrize("model_type", TARGETS)
def test_the_default_recipe(model_type: str, tmp_path: Path) -> None:
    from kobako.pipeline.validate.fidelity import check_weights, compare_decode
    from kobako.pipeline.validate.gates import fidelity_gate

    target = targets.get(TARGETS[model_type])
    need(target.name)
    shape = next(shape for shape in SHAPES if shape.model_type == model_type)
    shape = replace(shape, options={**shape.options, **IN_GROUPS.get(model_type, {})})
    quantized = calibrated(tmp_path, shape)
    weights = open_weights(quantized.directory)
    assert (
        sum(shifted(weights[name]) for name in weights) >= 8
    )  # the layers' matrices have asymmetric blocks of four bits
    (tmp_path / "artifact").mkdir()
    artifact = target.export(quantized, OPTIONS, tmp_path / "artifact", no_progress)
    standard = standard_of(quantized, target.name)
    assert check_weights(target.stored_weights(artifact), standard.facts["weight_digests"]).passed
    with closing(target.runtime(artifact)) as runtime:
        decode = compare_decode(runtime, standard, lambda _: None)
    assert decode.mean_kl <= fidelity_gate(artifact.activations, standard.quality["noise"]).kl_nats


def test_only_what_rounding_changes_is_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a source that was in 4 bits before nothing is, one matrix that was not asks for it."""
    from kobako.pipeline import blocks, quantize
    from safetensors.numpy import load_file

    def gridded(name: str, value: np.ndarray) -> np.ndarray:
        narrow = name.endswith("_proj.weight")
        return blocks.round_to_grid(value, blocks.fit(value, 32)).dequantize() if narrow else value

    def all_but_one(name: str, value: np.ndarray) -> np.ndarray:
        return value if name.endswith("1.mlp.up_proj.weight") else gridded(name, value)

    layers: list[str] = []

    def noted(*arguments: Any, inner: Any = quantize.quantize_layers) -> None:
        layers.append(arguments[1])
        inner(*arguments)

    monkeypatch.setattr(quantize, "quantize_layers", noted)
    llama = next(shape for shape in SHAPES if shape.model_type == "llama")
    quantized = calibrated(tmp_path / "gridded", llama, gridded)
    assert not layers
    weights = open_weights(quantized.directory)
    names = [name for name in weights if name.endswith("down_proj.weight")]
    assert len(names) == 2
    before = load_file(tmp_path / "gridded" / "model.safetensors")
    for name in names:  # smoothing gave each block of each row another size, and nothing else changed
        assert shifted(weights[name])
        rounded, meant = weights[name].dequantize().reshape(-1, 32), before[name].reshape(-1, 32)
        cosines = (rounded * meant).sum(axis=1) / np.linalg.norm(rounded, axis=1) / np.linalg.norm(meant, axis=1)
        assert cosines.min() > 0.999  # rounding anything else gives 0.99
    calibrated(tmp_path / "mixed", llama, all_but_one)
    assert layers == ["model.layers"]


def shifted(tensor: QuantizedTensor | np.ndarray) -> bool:
    """Whether a matrix has asymmetric blocks."""
    return isinstance(tensor, QuantizedTensor) and tensor.shifts is not None
