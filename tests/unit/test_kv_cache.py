"""KV caches before anything is built: who has which, what they take, and who is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kobako.pipeline.build import build
from kobako.pipeline.cache import Cache
from kobako.pipeline.contracts import RECIPES, Expectations, ExportOptions
from kobako.pipeline.errors import BadArtifact, UnsupportedRecipe
from kobako.pipeline.fetch import fetch, parse
from kobako.pipeline.heads import Head, write_head
from kobako.pipeline.kvcache import cache_shapes, kv_cache_bytes
from kobako.pipeline.manifest import exported_of, read_manifest
from kobako.pipeline.plan import plan
from kobako.pipeline.prepare import settled
from kobako.pipeline.run import Request
from kobako.pipeline.standard import (
    cache_of,
    from_expectations,
    from_golden,
    kind_of,
    rounds_activations,
    write_golden,
)
from kobako.pipeline.validate.gates import fidelity_gate

from tests.families import SHAPES, Shape, config_of
from tests.unit.tiny_package import write_package

INT8 = ExportOptions(context_tokens=1024, kv_cache="int8")
SMOLLM2 = {
    "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "max_position_embeddings": 8192,
}  # fmt: skip


def request(*names: str, model: str = "smollm2-135m-instruct") -> Request:
    return Request(model=model, targets=names, recipe=RECIPES["int8"], options=INT8)


class Silent:
    """An Observer that must not be told of anything: a refusal comes before every stage."""


@pytest.mark.parametrize("names", [("coreml",), ("litert",), ("executorch", "litert"), ("executorch", "coreml")])
def test_targets_without_it_are_refused_before_anything_is_done(names: tuple[str, ...], tmp_path: Path) -> None:
    lacking = next(name for name in names if name != "executorch")
    for refuse in (
        lambda: build(request(*names), Cache(tmp_path), Silent()),
        lambda: plan(request(*names), Cache(tmp_path)),
    ):  # type: ignore[arg-type]
        with pytest.raises(UnsupportedRecipe, match=f"target {lacking} has no int8 KV cache.*executorch") as caught:
            refuse()
        assert caught.value.exit_code == 9
    assert not list(tmp_path.iterdir())


def test_encoders_are_refused(tmp_path: Path) -> None:
    write_head(Head(task="embed", longest_tokens=512, size=8, pooling="mean", normalize=True), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnsupportedRecipe, match="no KV cache"):
        settled(request("executorch"), tmp_path)


def test_sizes() -> None:
    floats = ExportOptions(context_tokens=1024)
    vectors = 30 * 2 * 3 * 1024
    assert (
        kv_cache_bytes(SMOLLM2, floats, "executorch") == kv_cache_bytes(SMOLLM2, floats, "litert") == vectors * 64 * 4
    )
    assert kv_cache_bytes(SMOLLM2, floats, "coreml") == vectors * 64 * 2
    assert kv_cache_bytes(SMOLLM2, INT8, "executorch") == vectors * (64 + 8)
    assert kv_cache_bytes({"model_type": "bert", "hidden_size": 64}, floats, "litert") == 0


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.model_type for shape in SHAPES])
def test_config_json_alone_tells_every_layers_cache(shape: Shape) -> None:
    from kobako.pipeline.reference.structure import cache_sizes

    config = config_of(shape)
    assert cache_shapes(json.loads(config.to_json_string(use_diff=False))) == cache_sizes(config)


def test_plan_tells_the_size(tmp_path: Path) -> None:
    model = tmp_path / "smol"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(SMOLLM2))
    (model / "model.safetensors").write_bytes(b"")
    fetch(parse(str(model)), tmp_path / "downloads", lambda _fraction, _text: None)
    made = plan(request("executorch", model=str(model)), Cache(tmp_path / "cache"))
    assert made.kv_cache_bytes == {"executorch": kv_cache_bytes(SMOLLM2, INT8, "executorch")}
    assert made.context_tokens == INT8.context_tokens


def test_plan_tells_an_encoder_decoders_own_context(tmp_path: Path) -> None:
    """Before anything was loaded: its exports take 256 tokens where none were asked for."""
    model = tmp_path / "t5"
    model.mkdir()
    config = {
        "model_type": "t5",
        "num_layers": 2,
        "num_heads": 4,
        "d_kv": 16,
        "d_model": 64,
        "d_ff": 128,
        "vocab_size": 99,
    }
    (model / "config.json").write_text(json.dumps(config))
    (model / "model.safetensors").write_bytes(b"")
    fetch(parse(str(model)), tmp_path / "downloads", lambda _fraction, _text: None)
    asked = replace(request("litert", model=str(model)), options=ExportOptions(context_tokens=1024), own_context=True)
    made, longer = (plan(one, Cache(tmp_path / "cache")) for one in (asked, replace(asked, own_context=False)))
    assert (made.context_tokens, longer.context_tokens) == (256, 1024)
    assert 0 < 4 * made.kv_cache_bytes["litert"] == longer.kv_cache_bytes["litert"]


def test_the_package_says_it(tmp_path: Path) -> None:
    options = ExportOptions(context_tokens=64)
    home = write_package(tmp_path / "float", tmp_path / "out", options=options)
    manifest = read_manifest(home)
    assert manifest["kv_cache"] == exported_of(home, manifest, "executorch").kv_cache == "float"
    assert manifest["targets"]["executorch"]["needs"]["kv_cache_bytes"] == 0  # the toy's config tells no sizes
    older = {key: value for key, value in manifest.items() if key != "kv_cache"}
    assert exported_of(home, older, "executorch").kv_cache == "float"
    assert exported_of(home, {**manifest, "kv_cache": "int8"}, "executorch").kv_cache == "int8"


def test_golden_files_are_of_the_cache_that_is_kept(tmp_path: Path) -> None:
    """A package is proven again against the reference that its artifact was proven against."""
    (tmp_path / "expect.json").write_text(json.dumps({"float": {}, "int8-dynamic-kv8": {"noise": {}}}))
    np.save(tmp_path / "ids.npy", np.zeros((1, 2), np.int32))
    for number, kind in enumerate(("float", "int8-dynamic-kv8")):
        np.save(tmp_path / f"logits-{kind}.npy", np.full((1, 2, 70), number, np.float32))
        np.save(tmp_path / f"keys-{kind}.npy", np.full((1, 2, 1, 4), number, np.float32))
        np.save(tmp_path / f"first-logits-{kind}.npy", np.zeros((1, 8), np.float32))
    made = Expectations(directory=tmp_path, activations=("int8-dynamic",), kv_cache="int8")
    (tmp_path / "golden").mkdir()
    write_golden(made, tmp_path / "golden")
    for standard in (
        from_expectations(made, RECIPES["int8"], "int8-dynamic"),
        from_golden(tmp_path / "golden", RECIPES["int8"], "int8-dynamic", "int8"),
    ):
        assert standard.kind == "int8-dynamic-kv8"
        assert standard.quality == {"noise": {}}
        assert standard.keys.max() == 1
    with pytest.raises(BadArtifact):
        from_golden(tmp_path / "golden", RECIPES["int8"], "int8-dynamic")


def test_each_kind_of_artifact_has_a_reference_of_its_own() -> None:
    kinds = {(a, c): kind_of(a, c) for a in ("float16", "int8-dynamic") for c in ("float", "int8")}  # type: ignore[arg-type]
    assert len(set(kinds.values())) == 4
    for (activations, cache), kind in kinds.items():
        assert cache_of(kind) == cache
        assert rounds_activations(kind) == (activations == "int8-dynamic")


def test_a_rounded_cache_is_allowed_its_own_noise_only() -> None:
    quiet, loud = {"kl_nats": 1e-5, "top1": 1.0}, {"kl_nats": 4e-3, "top1": 0.97}
    assert fidelity_gate("float32", quiet, "int8") == fidelity_gate("float32", quiet)
    assert fidelity_gate("float32", loud, "int8").kl_nats == pytest.approx(5e-3)
    assert fidelity_gate("float32", loud, "int8").top1 == pytest.approx(0.96)
    assert fidelity_gate("float32", loud).kl_nats == 1e-3
    assert fidelity_gate("int8-dynamic", loud, "int8") == fidelity_gate("int8-dynamic", loud)
