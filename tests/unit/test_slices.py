"""What may be written after --slice, and what remains of a configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kobako.pipeline.cache import Cache
from kobako.pipeline.contracts import RECIPES, ExportOptions
from kobako.pipeline.errors import KobakoError, UnsupportedModel, UsageError
from kobako.pipeline.estimate import parameters_of, weights_bytes
from kobako.pipeline.fetch import fetch, parse
from kobako.pipeline.plan import Plan, plan
from kobako.pipeline.reference.slices import parse_slice, sliced_config, sliced_name
from kobako.pipeline.run import Request

from tests.unit.gguf_files import byte_level_fields, write_gguf


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


def planned(model: str, text: str, work: Path) -> Plan:
    wanted = Request(
        model=model, targets=("coreml",), recipe=RECIPES["int8"], options=ExportOptions(), slice=text,
    )  # fmt: skip
    return plan(wanted, Cache(work / "cache"))


def checkpoint(home: Path, config: dict[str, Any]) -> str:
    """A directory that looks like a checkpoint, as far as a plan looks."""
    home.mkdir()
    (home / "config.json").write_text(json.dumps(config))
    (home / "model.safetensors").write_bytes(b"")
    fetch(parse(str(home)), home.parent / "cache" / "downloads")
    return str(home)


def published(config: dict[str, Any]) -> dict[str, Any]:
    """E4B as it is on the Hub: the text part, complete, inside."""
    from transformers import AutoConfig

    whole = AutoConfig.for_model(**config).to_dict()
    return {"model_type": "gemma3n", "text_config": whole, "vision_config": {}, "audio_config": {}}


def test_a_plan_is_made_of_the_slice(tmp_path: Path) -> None:
    config = published(E4B)
    model = checkpoint(tmp_path / "e4b", config)
    whole, nested = planned(model, "", tmp_path), planned(model, "skip=20-24;ffn=8192", tmp_path)
    assert (whole.slice, nested.slice) == ("", "ffn=8192;skip=20-24")
    inside = sliced_config(config["text_config"], parse_slice("e2b"))
    assert nested.parameters == sum(parameters_of(inside))
    assert nested.weights_bytes == weights_bytes(inside, RECIPES["int8"])
    # 35 layers lose half of 3 · 2048 · 16384 values each, and five go; the table loses their columns
    assert whole.parameters - nested.parameters > 30 * 3 * 2048 * 8192
    assert whole.weights_bytes - nested.weights_bytes == whole.parameters - nested.parameters + 5 * 256 * 262144
    for one, other in zip(whole.steps[2:5], nested.steps[2:5], strict=True):
        assert other.rss_bytes < one.rss_bytes
    assert nested.disk_bytes < whole.disk_bytes
    assert nested.left_out == whole.left_out == ("images", "audio")


def test_the_command_line_shows_the_slice(tmp_path: Path) -> None:
    from kobako.pipeline.cli.main import cli

    model = checkpoint(tmp_path / "e4b", published(E4B))
    command = ["plan", model, "--slice", "e2b", "--cache-dir", str(tmp_path / "cache")]
    made = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert made["slice"] == "ffn=8192;skip=20-24"
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 0
    assert f"slice ffn=8192;skip=20-24: {made['parameters'] / 1e6:.0f} M" in " ".join(shown.stdout.split())


def test_a_model_that_is_not_here_yet_has_no_size_of_a_slice(tmp_path: Path) -> None:
    made = planned("smollm2-135m-instruct", "e2b", tmp_path)
    assert (made.slice, made.parameters) == ("ffn=8192;skip=20-24", 0)
    assert planned("smollm2-135m-instruct", "", tmp_path).parameters > 0
    with pytest.raises(UsageError, match="'e3b' is no part of a slice"):
        planned("smollm2-135m-instruct", "e3b", tmp_path)


@pytest.mark.parametrize(
    ("edit", "text", "error", "words"),
    [
        ({}, "skip=18", UsageError, "leaves out layer 18, whose keys and values layer 20 reads"),
        ({}, "ffn=16384", UsageError, "is the whole model"),
        ({"model_type": "llama"}, "e2b", UnsupportedModel, "llama was not trained as models inside each other"),
        ({"model_type": None}, "e2b", UnsupportedModel, "None"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32}}, "e2b", UnsupportedModel,
         "is quantized already; slices are taken of plain floats"),
    ],
)  # fmt: skip
def test_a_plan_refuses_what_a_build_refuses(
    edit: dict[str, Any], text: str, error: type[KobakoError], words: str, tmp_path: Path
) -> None:
    model = checkpoint(tmp_path / "model", published(E4B)["text_config"] | edit)
    with pytest.raises(error, match=re.escape(words)):
        planned(model, text, tmp_path)


def test_a_plan_refuses_slices_of_gguf_files(tmp_path: Path) -> None:
    write_gguf(tmp_path / "llama.gguf", byte_level_fields())
    fetch(parse(str(tmp_path / "llama.gguf")), tmp_path / "cache" / "downloads")
    with pytest.raises(UnsupportedModel, match="llama was not trained as models inside each other"):
        planned(str(tmp_path / "llama.gguf"), "e2b", tmp_path)
