"""LoRA adapters: merged as PEFT itself merges them, or refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import Source, no_progress
from kobako.pipeline.errors import IntegrityError, KobakoError, NotFound, UnsupportedModel, UsageError
from kobako.pipeline.fetch import fetch, parse, parse_adapter, with_adapter
from kobako.pipeline.reference.load import load
from kobako.pipeline.reference.weights import open_reference

from tests.conftest import write_tiny_checkpoint

pytestmark = pytest.mark.heavy
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 16},
    "rank-stabilized": {"target_modules": "all-linear", "r": 4, "lora_alpha": 8, "use_rslora": True},
    "patterns": {
        "target_modules": ["q_proj", "v_proj"], "r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.v_proj": 32},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("base") / "tiny")


def train(base: Path, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Write an adapter with random weights to `out`; the weights of the model that PEFT makes of both."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **options))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(out)
    merged = model.merge_and_unload()
    return {name: value.detach().float().numpy() for name, value in merged.named_parameters()}


def adapted(base: Path, adapter: Path, downloads: Path) -> Source:
    return with_adapter(
        fetch(parse(str(base)), downloads, no_progress), parse_adapter(str(adapter)), downloads, no_progress
    )


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_weights_are_what_peft_merges(base: Path, tmp_path: Path, kind: str) -> None:
    expected = train(base, tmp_path / "french", OPTIONS[kind])
    source = adapted(base, tmp_path / "french", tmp_path / "downloads")
    assert source.name == "tiny-french"
    (tmp_path / "reference").mkdir()
    reference = load(source, tmp_path / "reference")
    with (
        open_reference(reference) as found,
        open_reference(replace(reference, source=replace(source, adapter=None))) as before,
    ):
        changed = {name for name in before if not np.array_equal(found[name], before[name])}
        for name in before:
            assert np.allclose(found[name], expected[name], atol=1e-6), name
    assert any("q_proj" in name for name in changed)
    assert not any("norm" in name or "embed" in name for name in changed)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapter") / "french"
    train(base, out, OPTIONS["plain"])
    return out


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"peft_type": "IA3"}, UnsupportedModel, "of kind IA3"),
        ({"use_dora": True}, UnsupportedModel, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, UnsupportedModel, "whole modules"),
        ({"lora_alpha": 1e308}, IntegrityError, "alpha of .* is 1e\\+308"),  # finite, and infinite as float32
    ],
)
def test_what_cannot_be_merged_is_refused(
    base: Path, adapter: Path, tmp_path: Path, change: dict[str, Any], error: type[KobakoError], words: str
) -> None:
    other = copied(adapter, tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | change))
    (tmp_path / "reference").mkdir()
    with pytest.raises(error, match=words):
        load(adapted(base, other, tmp_path / "downloads"), tmp_path / "reference")


def copied(adapter: Path, out: Path) -> Path:
    out.mkdir()
    for path in adapter.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def test_an_adapter_of_another_model_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    (tmp_path / "reference").mkdir()
    other = copied(adapter, tmp_path / "other")
    tensors = load_file(other / "adapter_model.safetensors")
    deeper = {name.replace("layers.1.", "layers.7."): value for name, value in tensors.items()}
    save_file(deeper, other / "adapter_model.safetensors")
    with pytest.raises(UnsupportedModel, match=r"layers\.7\..* does not have"):
        load(adapted(base, other, tmp_path / "downloads"), tmp_path / "reference")
    wider = {
        name: np.concatenate([value, value], axis=1) if "lora_A" in name else value for name, value in tensors.items()
    }
    save_file(wider, other / "adapter_model.safetensors")
    reference = load(adapted(base, other, tmp_path / "downloads"), tmp_path / "reference")
    with open_reference(reference) as weights, pytest.raises(IntegrityError, match="in shape"):
        weights["model.layers.0.self_attn.q_proj.weight"]
    large = {name: np.full_like(value, 1e30) for name, value in tensors.items()}
    save_file(large, other / "adapter_model.safetensors")
    reference = load(adapted(base, other, tmp_path / "downloads"), tmp_path / "reference")
    with open_reference(reference) as weights, pytest.raises(IntegrityError, match="infinite or NaN"):
        weights["model.layers.0.self_attn.q_proj.weight"]
    half = {name: value for name, value in tensors.items() if "layers.0.mlp.down_proj.lora_B" not in name}
    save_file(half, other / "adapter_model.safetensors")
    with pytest.raises(IntegrityError, match="only one half"):
        load(adapted(base, other, tmp_path / "downloads"), tmp_path / "reference")


def test_models_and_adapters_are_not_mistaken_for_each_other(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds an adapter"):
        parse(str(adapter))
    with pytest.raises(NotFound, match="is no adapter"):
        parse_adapter(str(base))
    model = parse(str(base))
    source = fetch(model, tmp_path, no_progress)
    with pytest.raises(UsageError, match="whole model"):
        with_adapter(source, model, tmp_path, no_progress)
    with pytest.raises(UnsupportedModel, match="holds an adapter"):
        fetch(replace(model, text=str(adapter)), tmp_path, no_progress)
