"""What may be written after --slice, and what remains of a configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kobako.pipeline.errors import UnsupportedModel, UsageError
from kobako.pipeline.reference.slices import parse_slice, sliced_config, sliced_name


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("e2b", "ffn=8192;skip=20-24"),
        ("E2B", "ffn=8192;skip=20-24"),
        (" skip=24,20-23 ; ffn=8192", "ffn=8192;skip=20-24"),
        ("ffn=3:64,0-2:32", "ffn=0-2:32,3:64"),
        ("ffn=25-29:96,32,4:64", "ffn=32,4:64,25-29:96"),
        ("skip=1", "skip=1"),
    ],
)
def test_there_is_one_way_to_write_a_slice(written: str, text: str) -> None:
    assert parse_slice(written).text == text
    assert parse_slice(text).text == text


def test_packages_of_different_slices_have_different_names() -> None:
    assert sliced_name("gemma", parse_slice("skip=20-24;ffn=8192")) == "gemma-e2b"
    names = {sliced_name("gemma", parse_slice(text)) for text in ("ffn=32", "ffn=64", "skip=3")}
    assert len(names) == 3
    assert all(re.fullmatch(r"gemma-slice-[0-9a-f]{8}", name) for name in names)
    assert sliced_name("gemma", None) == "gemma"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no part of a slice"),
        ("e3b", "'e3b' is no part of a slice"),
        ("ffn=32;ffn=64", "is there twice"),
        ("ffn=", "'' is no width"),
        ("ffn=-3", "'-3' is no width"),
        ("ffn=32,64", "a second one for all"),
        ("ffn=3-1:32", "'3-1' is no layer"),
        ("ffn=1-2-3:32", "'1-2-3' is no layer"),
        ("ffn=0-3:32,3:64", "layer 3 is named twice"),
        ("skip=2,1-3", "layer 2 is named twice"),
        ("skip=99999999", "is no layer"),
        ("skip=", "is no layer"),
        ("ffn=32,2:64;skip=2", "layer 2 has a width and is left out"),
    ],
)
def test_what_is_no_slice_is_named(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        parse_slice(text)


E4B: dict[str, Any] = {"model_type": "gemma3n_text", "vocab_size": 262400, "num_hidden_layers": 35}


def test_e2b_inside_e4b_is_the_published_e2b() -> None:
    """Although config.json leaves to defaults what depends on the number of layers."""
    made = sliced_config(E4B, parse_slice("e2b"))
    assert made["num_hidden_layers"] == 30
    assert made["intermediate_size"] == [8192] * 30
    assert made["num_kv_shared_layers"] == 10
    assert made["activation_sparsity_pattern"] == [0.95] * 10 + [0.0] * 20
    assert made["layer_types"] == (["sliding_attention"] * 4 + ["full_attention"]) * 6
    assert made["vocab_size"] == 262400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("skip=35", "names layer 35, the model has layers 0 to 34"),
        ("ffn=30-36:8192", "names layer 35"),
        ("skip=0-34", "leaves no layer"),
        ("skip=18", "leaves out layer 18, whose keys and values layer 20 reads"),
        ("skip=19", "leaves out layer 19, whose keys and values layer 24 reads"),
        ("ffn=16416", "layer 0 has 16384 channels, fewer than 16416"),
        ("ffn=8200", "width 8200 of layer 0 is no multiple of 32"),
        ("ffn=3:0", "width 0 of layer 3"),
        ("ffn=0", "width 0 of layer 0"),
        ("ffn=16384", "is the whole model"),
    ],
)
def test_a_slice_that_does_not_fit_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        sliced_config(E4B, parse_slice(text))


@pytest.mark.parametrize("model_type", ["llama", "gemma4_text", "gemma3_text"])
def test_models_that_are_not_nested_are_refused(model_type: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"{model_type} was not trained as .* Nested are: gemma3n_text"):
        sliced_config(E4B | {"model_type": model_type}, parse_slice("e2b"))


def test_all_that_share_keys_may_go_with_whom_they_read() -> None:
    assert sliced_config(E4B, parse_slice("skip=19,24,29,34"))["num_kv_shared_layers"] == 12
