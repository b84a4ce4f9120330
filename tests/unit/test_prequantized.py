"""Packed checkpoints come out as the floats they stand for, or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import RECIPES, Source
from kobako.pipeline.errors import UnsupportedModel
from kobako.pipeline.reference.grids import source_grid
from kobako.pipeline.reference.prequantized import Packing, original_name, packing_of, unpacked
from packed_files import AWQ_NIBBLES, Array, along_inputs, along_outputs, grid, weight

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}


def packing(**fields: Any) -> Packing:
    found = packing_of({"quantization_config": fields})
    assert found is not None
    return found


def read_from(tensors: dict[str, Array], form: Packing) -> Array:
    return unpacked(lambda name: tensors[name.removeprefix("layer.")], "layer", form)


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_stores_each_zero_less_one_in_its_first_format_and_as_it_is_in_the_second(bits: int) -> None:
    codes, zeros, scales = grid(16, 64, 32, bits)
    expected = weight(codes, zeros, scales, np.arange(64) // 32)
    tensors = {"qweight": along_inputs(codes, bits), "scales": scales}
    first = packing(**(GPTQ | {"bits": bits}))
    second = packing(**(GPTQ | {"bits": bits, "checkpoint_format": "gptq_v2"}))
    assert np.array_equal(read_from(tensors | {"qzeros": along_outputs(zeros - 1, bits)}, first), expected)
    assert np.array_equal(read_from(tensors | {"qzeros": along_outputs(zeros, bits)}, second), expected)


def test_gptq_groups_may_lie_scattered() -> None:
    codes, zeros, scales = grid(16, 64, 32)
    group_of = np.random.default_rng(1).permutation(np.arange(64) // 32)
    tensors = {
        "qweight": along_inputs(codes), "qzeros": along_outputs(zeros - 1), "scales": scales,
        "g_idx": group_of.astype(np.int32),
    }  # fmt: skip
    form = packing(**GPTQ, desc_act=True)
    assert np.array_equal(read_from(tensors, form), weight(codes, zeros, scales, group_of))
    assert "lie apart" in form.loss_of_grid(RECIPES["int4"])


@pytest.mark.parametrize("group_of", [np.full(64, -1, np.int32), np.zeros(63, np.int32), np.zeros(64, np.float32)])
def test_groups_that_are_none_are_not_guessed(group_of: Array) -> None:
    codes, zeros, scales = grid(16, 64, 32)
    tensors = {"qweight": along_inputs(codes), "qzeros": along_outputs(zeros), "scales": scales, "g_idx": group_of}
    with pytest.raises(ValueError, match="does not tell the groups"):
        read_from(tensors, packing(**GPTQ, desc_act=True))


def test_awq_keeps_outputs_in_an_order_of_its_own() -> None:
    codes, zeros, scales = grid(16, 128, 64)
    tensors = {
        "qweight": along_outputs(codes, order=AWQ_NIBBLES), "qzeros": along_outputs(zeros, order=AWQ_NIBBLES),
        "scales": scales,
    }  # fmt: skip
    form = packing(quant_method="awq", bits=4, group_size=64, version="gemm")
    assert np.array_equal(read_from(tensors, form), weight(codes, zeros, scales, np.arange(128) // 64))


@pytest.mark.parametrize(
    ("fields", "recipe", "words"),
    [
        (GPTQ, "int4", ""),
        (GPTQ | {"group_size": 128}, "int4-small", ""),
        (GPTQ | {"group_size": -1}, "int4", ""),
        (GPTQ, "float16", ""),
        (GPTQ, "int8", "4-bit grid"),
        (GPTQ, "int4-nearest", "symmetric"),
        (GPTQ | {"bits": 8}, "int4", "8-bit grid"),
        (GPTQ | {"group_size": 16}, "int4", "no multiple of 32"),
    ],
)
def test_whether_a_recipe_keeps_the_grid_is_said(fields: dict[str, Any], recipe: str, words: str) -> None:
    said = packing(**fields).loss_of_grid(RECIPES[recipe])
    assert words in said
    assert bool(words) == bool(said)


def test_the_plan_says_what_becomes_of_the_grid(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": GPTQ | {"desc_act": True}}))
    source = Source(
        name="m", origin="", revision="", directory=tmp_path, files=(), format="safetensors", licence=""
    )  # fmt: skip
    assert source_grid(source, RECIPES["int4"]) == (
        "The source is quantized by gptq (4 bits, groups of 32); its weights are rounded anew, since the inputs of its "
        "groups lie apart (desc_act)."
    )
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": GPTQ}))
    assert source_grid(source, RECIPES["int4"]).endswith("recipe int4 keeps its grid.")
    (tmp_path / "config.json").write_text("{}")
    assert source_grid(source, RECIPES["int4"]) == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"quant_method": "bitsandbytes"},
        {"bits": 4},
        "gptq",
        GPTQ | {"bits": 3},
        GPTQ | {"bits": "4"},
        GPTQ | {"group_size": 0},
        GPTQ | {"group_size": 10**400},
        GPTQ | {"quant_method": ["gptq"]},
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": 7}},
        {"quant_method": "awq", "bits": 4, "version": "gemv"},
        {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {}}},
    ],
)
def test_other_ways_to_quantize_are_refused(fields: Any) -> None:
    with pytest.raises(UnsupportedModel, match="quantized already"):
        packing_of({"quantization_config": fields})


def test_helpers_of_packed_codes_are_no_parameters() -> None:
    form = packing(**GPTQ)
    names = ["a.qweight", "a.qzeros", "a.scales", "a.g_idx", "a.bias", "norm.weight"]
    assert [original_name(name, form) for name in names] == ["a.weight", None, None, None, "a.bias", "norm.weight"]
    assert original_name("a.scales", None) == "a.scales"
