"""Nested models: what is cut out of a checkpoint is what a model built by hand of the same weights says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import RECIPES, Quantized, Recipe, Reference
from kobako.pipeline.embeddings import TABLE_FILE, open_table
from kobako.pipeline.errors import UnsupportedModel
from kobako.pipeline.reference.slices import parse_slice
from kobako.pipeline.stagecode import load_inputs

from tests.contract.test_per_layer import IDS, PER_LAYER, TABLE, logits_of, multimodal, write_checkpoint
from tests.families import config_of

pytestmark = pytest.mark.heavy

KINDS = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
WHOLE = replace(
    next(shape for shape in PER_LAYER if shape.model_type == "gemma3n_text"),
    options={
        "num_hidden_layers": 7, "num_kv_shared_layers": 3, "hidden_size_per_layer_input": 32, "sliding_window": 48,
        "vocab_size_per_layer_input": 380, "layer_types": [*KINDS, "sliding_attention", "full_attention"],
        "head_dim": 16, "laurel_rank": 32, "altup_num_inputs": 3, "intermediate_size": [128] * 7,
        "activation_sparsity_pattern": [0.9, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0],
    },
)  # fmt: skip
"""Layers 4 to 6 read the keys and values of 1 and 3."""
SLICE = "ffn=64,3:96,5:128;skip=0,4"
KEPT, WIDTHS = [1, 2, 3, 5, 6], [64, 64, 96, 128, 64]


def taken(home: Path, work: Path, text: str = SLICE) -> Reference:
    """The reference of a slice of the checkpoint `home`."""
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load

    (work / "reference").mkdir(parents=True)
    source = fetch(parse(str(home)), work / "downloads")
    return load(replace(source, slice=parse_slice(text).text), work / "reference")


def by_hand(whole: Any) -> Any:
    """The nested model, its modules and tensors put together by hand."""
    import torch
    from transformers import AutoModelForCausalLM

    options = WHOLE.options
    shape = replace(WHOLE, options={
        **options, "num_hidden_layers": 5, "num_kv_shared_layers": 2, "intermediate_size": WIDTHS,
        "layer_types": [options["layer_types"][layer] for layer in KEPT],
        "activation_sparsity_pattern": [options["activation_sparsity_pattern"][layer] for layer in KEPT],
    })  # fmt: skip
    model = AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.float32).eval()
    columns = [layer * 32 + channel for layer in KEPT for channel in range(32)]
    state = dict(whole.state_dict())
    made: dict[str, torch.Tensor] = {}
    for name in model.state_dict():
        parts = name.split(".")
        if parts[1] == "layers":
            place = int(parts[2])
            value = state[".".join(["model.layers", str(KEPT[place]), *parts[3:]])]
            if parts[-2] in ("gate_proj", "up_proj"):
                value = value[: WIDTHS[place]]
            elif parts[-2] == "down_proj":
                value = value[:, : WIDTHS[place]]
        elif name == TABLE:
            value = state[name][:, columns]
        else:
            value = state[name][columns] if "per_layer_model_projection" in name else state[name]
        made[name] = value.clone()
    model.load_state_dict(made, strict=True)
    return model


@pytest.mark.parametrize("edit", [None, multimodal], ids=["text", "multimodal"])
def test_a_slice_says_what_the_nested_model_says(edit: Any, tmp_path: Path) -> None:
    from kobako.pipeline.reference.model import reference_model
    from kobako.pipeline.reference.weights import open_reference

    nested = by_hand(write_checkpoint(tmp_path / "model", WHOLE, edit))
    reference = taken(tmp_path / "model", tmp_path)
    with open_reference(reference) as tensors:
        for name, value in nested.named_parameters():
            if name != "lm_head.weight":
                assert np.array_equal(tensors[name], value.detach().numpy()), name
        assert len(tensors) == len(list(tensors))
    said, wanted = logits_of(reference_model(reference)), logits_of(nested)
    assert np.allclose(said, wanted, atol=1e-5)
    assert len(set(said.argmax(-1))) > len(IDS) // 4, "a model that says one thing proves nothing"


def test_the_table_is_cut_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kobako.pipeline.embeddings import extract
    from kobako.pipeline.quantize import quantize
    from kobako.pipeline.reference.eager import quantized_model
    from kobako.pipeline.reference.weights import SafetensorsReader
    from kobako.pipeline.weights import open_weights

    nested = by_hand(write_checkpoint(tmp_path / "model", WHOLE))
    reference = taken(tmp_path / "model", tmp_path)
    monkeypatch.setattr(extract, "VALUES_AT_ONCE", 5000)
    whole = SafetensorsReader.__getitem__

    def never_the_table(reader: SafetensorsReader, name: str) -> Any:
        assert name != TABLE
        return whole(reader, name)

    monkeypatch.setattr(SafetensorsReader, "__getitem__", never_the_table)
    (tmp_path / "out").mkdir()
    quantized = quantize(reference, RECIPES["float16"], tmp_path / "out")
    table = open_table(quantized.directory / TABLE_FILE, check_digest=True)
    assert (table.layout.rows, table.layout.layers, table.layout.width) == (380, 5, 32)
    values = nested.state_dict()[TABLE].numpy()
    assert (table.rows(range(380)).reshape(values.shape) == values.astype(np.float16)).all()
    assert open_weights(quantized.directory)["model.layers.2.mlp.down_proj.weight"].shape == (64, 96)
    assert np.allclose(logits_of(quantized_model(quantized)), logits_of(nested), atol=0.05)


def test_a_slice_is_part_of_the_key(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", WHOLE)
    one, other = (taken(tmp_path / "model", tmp_path / name, text) for name, text in (("1", SLICE), ("2", "skip=4")))
    whole = replace(one.source, slice="")
    assert len({json.dumps(load_inputs(source, None)) for source in (one.source, other.source, whole)}) == 3


def test_models_that_are_not_nested_are_not_sliced(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", PER_LAYER[0])
    with pytest.raises(UnsupportedModel, match="gemma4_text was not trained as models inside each other"):
        taken(tmp_path / "other", tmp_path, "skip=4")


def test_packed_weights_are_not_sliced(tmp_path: Path) -> None:
    def packed(config: dict[str, Any], tensors: Any) -> None:
        multimodal(config, tensors)
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}

    write_checkpoint(tmp_path / "packed", WHOLE, packed)
    with pytest.raises(UnsupportedModel, match="packed is quantized already; slices are taken of plain floats"):
        taken(tmp_path / "packed", tmp_path)


def test_a_size_budget_counts_the_slice_and_not_the_whole(tmp_path: Path) -> None:
    """Each part's bytes in 4 and 8 bits are those that the nested model's parameters then take."""
    from kobako.pipeline.allocate import allocate, mixtures
    from kobako.pipeline.contracts import no_progress
    from kobako.pipeline.mixture import Goal
    from kobako.pipeline.quantize import quantize
    from kobako.pipeline.sensitivity import sensitivity
    from kobako.pipeline.weights import open_weights, stored_bytes

    def made(recipe: Recipe, name: str) -> Quantized:
        (tmp_path / name).mkdir()
        return quantize(reference, recipe, tmp_path / name)

    def size(quantized: Quantized) -> int:
        weights = open_weights(quantized.directory)
        return sum(stored_bytes(weights[name]) for part in curve.parts for name in part.parameters)

    write_checkpoint(tmp_path / "model", WHOLE)
    reference = taken(tmp_path / "model", tmp_path)
    base = replace(RECIPES["int4-small"], rounding="nearest", smoothing=0.0)
    narrow = made(base, "narrow")
    curve = sensitivity(reference, narrow, no_progress)
    smallest, *_, largest = mixtures(curve)
    assert {part.name for part in curve.parts if part.name.endswith("mlp")} == {f"layer {n} mlp" for n in range(5)}
    assert size(narrow) == smallest.weights_bytes
    budget = (smallest.weights_bytes + largest.weights_bytes) // 2
    mixed = allocate(curve, Goal(size_bytes=budget), base, rounds_activations=False)
    assert smallest.weights_bytes < size(made(mixed, "mixed")) <= budget
