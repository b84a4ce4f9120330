"""Models with a per-layer table: read from every kind of checkpoint, quantized without ever being whole in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import RECIPES, Reference
from kobako.pipeline.embeddings import TABLE_FILE, open_table
from kobako.pipeline.errors import IntegrityError, UnsupportedModel

from tests.conftest import write_tiny_tokenizer
from tests.families import SHAPES, Shape, config_of

pytestmark = pytest.mark.heavy

PER_LAYER = [shape for shape in SHAPES if shape.model_type in ("gemma4_text", "gemma3n_text")]
NAMES = [shape.model_type for shape in PER_LAYER]
TABLE = "model.embed_tokens_per_layer.weight"
IDS = list(range(3, 90))

Tensors = dict[str, np.ndarray[Any, Any]]


def write_checkpoint(
    home: Path, shape: Shape, edit: Callable[[dict[str, Any], Tensors], None] | None = None, peak: float = 3.0
) -> Any:
    """A random model of `shape` as a Hugging Face directory; the model itself. `edit` may change what is written.

    `peak` multiplies the embedding, which is the head too: by default all tokens would be nearly as likely.
    """
    import torch
    from safetensors.numpy import load_file, save_file
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name == "model.embed_tokens.weight":
                value.mul_(peak)
            elif value.dim() == 2:
                value.mul_(2.0)
            elif name.endswith("layer_scalar"):
                value.fill_(0.6)
    write_tiny_tokenizer(home)
    model.save_pretrained(home)
    config = json.loads((home / "config.json").read_text())
    tensors = load_file(home / "model.safetensors")
    if edit is not None:
        edit(config, tensors)
    (home / "config.json").write_text(json.dumps(config))
    save_file(tensors, home / "model.safetensors")
    return model


def load_reference(home: Path, work: Path) -> Reference:
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load

    (work / "reference").mkdir(parents=True)
    return load(fetch(parse(str(home)), work / "downloads"), work / "reference")


def logits_of(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


def multimodal(config: dict[str, Any], tensors: Tensors) -> None:
    """As it is published: the text part inside, under other names, beside what sees and hears."""
    inner = dict(config)
    config.clear()
    config.update(
        model_type=inner["model_type"].removesuffix("_text"), text_config=inner, vision_config={"hidden_size": 8},
        eos_token_id=[2, 5],
    )  # fmt: skip
    for name in list(tensors):
        if name.startswith("model."):
            tensors["model.language_model." + name.removeprefix("model.")] = tensors.pop(name)
    tensors["model.vision_tower.patch.weight"] = np.zeros((8, 8), np.float32)
    tensors["model.embed_vision.embedding_projection.weight"] = np.zeros((8, 8), np.float32)


@pytest.mark.parametrize("edit", [None, multimodal], ids=["text", "multimodal"])
@pytest.mark.parametrize("shape", PER_LAYER, ids=NAMES)
def test_the_text_part_says_what_transformers_says(shape: Shape, edit: Any, tmp_path: Path) -> None:
    """Scales of layers, which a checkpoint keeps as buffers, included."""
    from kobako.pipeline.reference.model import reference_model

    model = write_checkpoint(tmp_path / "model", shape, edit)
    reference = load_reference(tmp_path / "model", tmp_path)
    assert reference.model_type == shape.model_type
    assert np.allclose(logits_of(reference_model(reference)), logits_of(model), atol=1e-5)


@pytest.mark.parametrize("shape", PER_LAYER, ids=NAMES)
def test_a_checkpoint_without_its_table_is_refused(shape: Shape, tmp_path: Path) -> None:
    def without(_: dict[str, Any], tensors: Tensors) -> None:
        del tensors[TABLE]

    write_checkpoint(tmp_path / "model", shape, without)
    with pytest.raises(
        IntegrityError, match=r"asks for per-layer inputs .* has no tensor model.embed_tokens_per_layer"
    ):
        load_reference(tmp_path / "model", tmp_path)


def test_a_configuration_that_forgets_the_table_is_refused(tmp_path: Path) -> None:
    def forget(config: dict[str, Any], _: Tensors) -> None:
        config["hidden_size_per_layer_input"] = 0

    write_checkpoint(tmp_path / "model", PER_LAYER[0], forget)
    with pytest.raises(IntegrityError, match=r"rules out per-layer inputs .* has the tensor"):
        load_reference(tmp_path / "model", tmp_path)


@pytest.mark.parametrize("inner", [{}, None, "text"])
def test_a_multimodal_configuration_without_a_text_part_is_refused(inner: Any, tmp_path: Path) -> None:
    def empty(config: dict[str, Any], _: Tensors) -> None:
        config.update(model_type="gemma4", text_config=inner)

    write_checkpoint(tmp_path / "model", PER_LAYER[0], empty)
    with pytest.raises(UnsupportedModel, match="has no text_config"):
        load_reference(tmp_path / "model", tmp_path)


def test_experts_are_refused(tmp_path: Path) -> None:
    from kobako.pipeline.reference.structure import check_decoder

    config = config_of(PER_LAYER[0])
    config.enable_moe_block = True
    with pytest.raises(UnsupportedModel, match="mixtures of experts"):
        check_decoder(config, 128)


@pytest.mark.parametrize("recipe", ["float16", "int8", "int4", "int4-small"])
@pytest.mark.parametrize("shape", PER_LAYER, ids=NAMES)
def test_the_table_is_quantized_row_by_row_and_never_whole(
    shape: Shape, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kobako.pipeline.embeddings import extract
    from kobako.pipeline.metrics import kl_nats
    from kobako.pipeline.quantize import quantize
    from kobako.pipeline.reference.eager import quantized_model
    from kobako.pipeline.reference.weights import SafetensorsReader
    from kobako.pipeline.weights import open_weights, round_to_nearest

    model = write_checkpoint(tmp_path / "model", shape)
    reference = load_reference(tmp_path / "model", tmp_path)
    monkeypatch.setattr(extract, "VALUES_AT_ONCE", 5000)
    whole = SafetensorsReader.__getitem__

    def never_the_table(reader: SafetensorsReader, name: str) -> Any:
        assert name != TABLE
        return whole(reader, name)

    monkeypatch.setattr(SafetensorsReader, "__getitem__", never_the_table)
    (tmp_path / "out").mkdir()
    quantized = quantize(reference, RECIPES[recipe], tmp_path / "out")
    loss = float(kl_nats(logits_of(model), logits_of(quantized_model(quantized))).mean())
    assert loss <= {"float16": 1e-3, "int8": 0.1, "int4": 0.9, "int4-small": 0.9}[recipe]
    assert TABLE not in open_weights(quantized.directory)
    table = open_table(quantized.directory / TABLE_FILE, check_digest=True)
    values = model.state_dict()[TABLE].numpy()
    width = config_of(shape).hidden_size_per_layer_input
    bits = RECIPES[recipe].embedding_bits
    wanted = values.astype(np.float16) if bits == 16 else round_to_nearest(values, bits, width).dequantize()
    assert (table.rows(range(len(values))).reshape(values.shape) == wanted).all()
    assert table.layout.multiplier == pytest.approx(width**0.5)
    assert table.layout.model == reference.name


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    from kobako.pipeline.quantize import quantize

    def damage(_: dict[str, Any], tensors: Tensors) -> None:
        tensors[TABLE][200, 3] = np.nan

    write_checkpoint(tmp_path / "model", PER_LAYER[0], damage)
    reference = load_reference(tmp_path / "model", tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(IntegrityError, match=f"{TABLE} holds NaN"):
        quantize(reference, RECIPES["float16"], tmp_path / "out")
    assert not (tmp_path / "out" / TABLE_FILE).exists()


def test_calibration_shows_every_token_to_layers_that_share_keys(tmp_path: Path) -> None:
    """transformers shows them the last token only when that is all whose logits are asked for."""
    import torch
    from kobako.pipeline.reference.model import reference_model
    from kobako.pipeline.smooth import largest_inputs

    write_checkpoint(tmp_path / "model", PER_LAYER[0])
    model = reference_model(load_reference(tmp_path / "model", tmp_path))
    seen: list[int] = []
    model.get_submodule("model.layers.4.mlp.up_proj").register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].shape[1])
    )
    largest_inputs(model, [IDS])
    assert seen == [len(IDS)]
    assert torch.is_tensor(model.lm_head.weight)


@pytest.fixture(scope="module")
def coreml(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny Gemma 4 in int8 as a Core ML package."""
    from kobako import targets
    from kobako.pipeline.contracts import ExportOptions, no_progress

    from tests.contract.test_targets import need
    from tests.families import make

    need("coreml")
    home = tmp_path_factory.mktemp("coreml")
    for name in ("quantized", "out"):
        (home / name).mkdir()
    quantized = make(home / "quantized", PER_LAYER[0], "int8", write_tiny_tokenizer)
    options = ExportOptions(context_tokens=64, prefill_tokens=16)
    return targets.get("coreml").export(quantized, options, home / "out", no_progress)


def test_core_ml_takes_the_rows_as_an_input_and_not_the_table(coreml: Any) -> None:
    from kobako import targets

    weights = coreml.directory / "model.mlpackage" / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    table = open_table(coreml.directory / TABLE_FILE)
    assert table.data[300].tobytes() not in weights.read_bytes()
    described = json.dumps(targets.get("coreml").inspect(coreml.directory / "model.mlpackage"))
    assert "per_layer_inputs" in described


def test_core_ml_refuses_another_table_or_none(coreml: Any, tmp_path: Path) -> None:
    import shutil
    from dataclasses import replace

    from kobako import targets
    from kobako.pipeline.embeddings import write_table
    from kobako.pipeline.errors import BadArtifact

    copy = replace(coreml, directory=Path(shutil.copytree(coreml.directory, tmp_path / "coreml")))
    table = open_table(coreml.directory / TABLE_FILE)
    target, path = targets.get("coreml"), copy.directory / TABLE_FILE
    path.unlink()
    with pytest.raises(BadArtifact, match="neither there nor one folder up"):
        target.runtime(copy)
    foreign = replace(table.layout, model="another")
    write_table(path, foreign, [foreign.unpack(table.data)])
    with pytest.raises(BadArtifact, match="is the table of another, not of tiny-gemma4_text"):
        target.runtime(copy)
    narrow = replace(table.layout, layers=table.layout.layers * 2, width=table.layout.width // 2)
    values = np.zeros((narrow.rows, narrow.layers * narrow.width), np.float16)
    write_table(path, replace(narrow, bits=16), [values])
    with pytest.raises(BadArtifact, match=r"does not take rows \(1, 1, 10, 16\)"):
        target.runtime(copy)


def test_tokens_beyond_the_table_have_its_first_row(tmp_path: Path) -> None:
    """Gemma 3n's table is shorter than its vocabulary."""
    from kobako.pipeline.embeddings import TableLayout, write_table
    from kobako.targets.coreml.runtime import per_layer_inputs

    layout = TableLayout(model="m", parameter="p", rows=4, layers=2, width=2, bits=16, multiplier=2.0)
    values = np.arange(16, dtype=np.float16).reshape(4, 4)
    write_table(tmp_path / "table", layout, [values])
    rows = per_layer_inputs(open_table(tmp_path / "table"), np.array([[3, 0, 5]], np.int32))
    assert rows.shape == (1, 3, 2, 2)
    assert (rows.reshape(3, 4) == 2 * values[[3, 0, 0]]).all()


def test_a_plan_is_made_of_the_text_part(tmp_path: Path) -> None:
    """Also before anything was loaded, when there is only the configuration of the whole."""
    import os
    import subprocess
    import sys

    write_checkpoint(tmp_path / "model", PER_LAYER[1], multimodal)
    command = [sys.executable, "-m", "kobako.pipeline.cli.main", "plan", str(tmp_path / "model"), "--json"]
    environment = {**os.environ, "KOBAKO_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["left_out"] == ["images"]
    assert plan["note"].startswith("Text only: what the original reads of images is left out.")
    steps = {step["stage"]: step for step in plan["steps"]}
    assert steps["quantize"]["rss_bytes"] > 0
