"""The ExecuTorch target in ExecuTorch's own C++ runtime and runner, on a tiny random llama."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.codec import to_json
from kobako.pipeline.contracts import RECIPES, Exported, ExportOptions, KvCache, Quantized, no_progress
from kobako.pipeline.errors import BadArtifact, UnsupportedModel, UsageError
from kobako.pipeline.protocols import Engine, Runtime
from kobako.pipeline.weights import QuantizedTensor, open_weights
from kobako.targets.executorch import TARGET

from tests.conftest import write_tiny_tokenizer

CONTEXT = 64
IDS = [1, 300, 17, 250, 99, 5, 383, 42, 42, 7, 128, 200, 3, 64, 310, 11, 290, 33, 8, 150]
VARIANTS = [
    ("float16", True),
    ("int8", True),
    ("int4", True),
    ("int8", False),
    ("int4-small", True),
    ("int4-nearest", True),
]

heavy = pytest.mark.heavy
Make = Callable[..., Exported]


@pytest.fixture(scope="module")
def exported(tiny: Callable[..., Quantized], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``exported(recipe, tied=True)`` → the tiny llama as a .pte; made once per combination."""
    made: dict[tuple[str, bool], Exported] = {}

    def get(recipe: str, *, tied: bool = True) -> Exported:
        key = (recipe, tied)
        if key not in made:
            out = tmp_path_factory.mktemp(f"executorch-{recipe}")
            options = ExportOptions(context_tokens=CONTEXT)
            made[key] = TARGET.export(tiny(recipe, tied=tied), options, out, no_progress)
        return made[key]

    return get


def reference_logits(quantized: Quantized) -> np.ndarray[Any, Any]:
    """Logits ``[T, V]`` of the quantized reference, activations rounded where the target rounds them."""
    import torch
    from kobako.pipeline.reference.eager import dynamic_int8_activations, quantized_model

    model = quantized_model(quantized)
    rounding = nullcontext() if quantized.recipe.name == "float16" else dynamic_int8_activations(model)
    with torch.no_grad(), rounding:
        return model(torch.tensor([IDS])).logits[0].numpy()


def mean_kl(wanted: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> float:
    """Mean Kullback-Leibler divergence in nats of rows of logits."""

    def log_softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shifted = x.astype(np.float64) - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))

    first, second = log_softmax(wanted), log_softmax(got)
    return float((np.exp(first) * (first - second)).sum(axis=-1).mean())


def decode(runtime: Runtime) -> np.ndarray[Any, Any]:
    """Logits ``[T, V]``, token by token."""
    runtime.reset()
    return np.stack([runtime.feed([token]) for token in IDS])


def test_importing_the_target_imports_no_vendor() -> None:
    code = "import sys, kobako.targets.executorch; print([m for m in ('torch', 'executorch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@heavy
@pytest.mark.parametrize("first", ["stored_weights", "runtime", "engine"])
def test_torch_is_told_to_start_no_threads_of_its_own_before_it_is_imported(exported: Make, first: str) -> None:
    code = """
import json, os, sys
from kobako.pipeline.codec import from_json
from kobako.pipeline.contracts import Exported
from kobako.targets.executorch import TARGET

from tests.conftest import write_tiny_tokenizer

class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print("threads", os.environ["MKL_NUM_THREADS"])

sys.meta_path.insert(0, Watch())
made = getattr(TARGET, sys.argv[1])(from_json(json.loads(sys.argv[2]), Exported))
if sys.argv[1] == "stored_weights":
    next(made)
"""
    told = json.dumps(to_json(exported("int8")))
    done = subprocess.run(
        [sys.executable, "-c", code, first, told], capture_output=True, text=True, check=True,
        env=os.environ | {"MKL_NUM_THREADS": "2"},
    )  # fmt: skip
    assert [line for line in done.stdout.splitlines() if line.startswith("threads")] == ["threads 1"]


@heavy
@pytest.mark.parametrize(("recipe", "tied"), VARIANTS)
def test_the_file_holds_exactly_the_given_codes_and_scales(
    exported: Make, tiny: Callable[..., Quantized], recipe: str, tied: bool
) -> None:
    weights = open_weights(tiny(recipe, tied=tied).directory)
    seen = []
    for stored in TARGET.stored_weights(exported(recipe, tied=tied)):
        wanted = weights[stored.name]
        if isinstance(wanted, QuantizedTensor):
            np.testing.assert_array_equal(stored.codes, wanted.codes)
            assert stored.scales is not None
            np.testing.assert_array_equal(stored.scales, wanted.scales)
            np.testing.assert_array_equal(stored.offsets, wanted.offsets)
        else:
            np.testing.assert_array_equal(stored.codes, wanted)
        seen.append(stored.name)
    assert set(seen) == {name for name in weights if weights.dequantized(name).ndim == 2}
    assert seen.count("model.embed_tokens.weight") == (2 if tied else 1)


@heavy
@pytest.mark.parametrize(("recipe", "tied"), VARIANTS)
def test_decode_and_prefill_say_what_the_reference_says(
    exported: Make, tiny: Callable[..., Quantized], recipe: str, tied: bool
) -> None:
    wanted = reference_logits(tiny(recipe, tied=tied))
    runtime = TARGET.runtime(exported(recipe, tied=tied))
    limit = 1e-8 if recipe == "float16" else 1e-3  # integers: rounding falls on the other side now and then
    assert isinstance(runtime, Runtime)
    assert mean_kl(wanted, decode(runtime)) < limit
    for length in (2, 7, len(IDS)):
        runtime.reset()
        assert mean_kl(wanted[length - 1 : length], runtime.feed(IDS[:length])[None]) < limit
    runtime.close()


@heavy
def test_prefill_in_the_middle_equals_decode(exported: Make) -> None:
    runtime = TARGET.runtime(exported("float16"))
    wanted = decode(runtime)
    runtime.reset()
    runtime.feed(IDS[:3])
    np.testing.assert_allclose(runtime.feed(IDS[3:9]), wanted[8], atol=1e-4)
    np.testing.assert_allclose(runtime.feed(IDS[9:10]), wanted[9], atol=1e-4)


@heavy
def test_reset_leaves_nothing_behind(exported: Make) -> None:
    runtime = TARGET.runtime(exported("int8"))
    fresh = runtime.feed(IDS[:4])
    runtime.reset()
    runtime.feed([9] * CONTEXT)
    runtime.reset()
    np.testing.assert_array_equal(runtime.feed(IDS[:4]), fresh)


@heavy
def test_feeding_beyond_the_context_is_refused(exported: Make) -> None:
    runtime = TARGET.runtime(exported("int8"))
    runtime.feed([5] * CONTEXT)
    with pytest.raises(UsageError, match="65 tokens exceed the context of 64"):
        runtime.feed([5])
    runtime.reset()
    with pytest.raises(UsageError):
        runtime.feed([])


@heavy
@pytest.mark.parametrize("recipe", ["int8", "int4-nearest"])  # the vendor's own passes miscompute sums of blocks
def test_our_delegates_equal_the_ordinary_lowering(tiny: Callable[..., Quantized], tmp_path: Path, recipe: str) -> None:
    """The same trace through ExecuTorch's partitioner and passes, without anything of ours."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower
    from kobako.targets.executorch.decoder import build_model, export_decoder, register_operators, registered_attention
    from kobako.targets.executorch.modules import Decoder
    from kobako.targets.executorch.position import Position
    from kobako.targets.executorch.runtime import load_module

    source = tiny(recipe, layers=1)
    register_operators()
    position = Position(CONTEXT)
    with registered_attention(position):
        program = export_decoder(Decoder(build_model(source, position), position, "float").eval())
    partitioners = [XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()]
    edge = to_edge_transform_and_lower(program, partitioner=partitioners)
    path = tmp_path / "plain.pte"
    path.write_bytes(edge.to_executorch().buffer)
    plain = load_module(path)
    options = ExportOptions(context_tokens=CONTEXT)
    runtime = TARGET.runtime(TARGET.export(source, options, made_dir(tmp_path / "ours"), no_progress))
    wanted = plain.forward([torch.tensor([IDS]), torch.tensor([0])])[0].numpy().reshape(-1)
    got = runtime.feed(IDS)
    assert mean_kl(wanted[None], got[None]) < 1e-3
    token = int(wanted.argmax())
    wanted = plain.forward([torch.tensor([[token]]), torch.tensor([len(IDS)])])[0].numpy().reshape(-1)
    assert mean_kl(wanted[None], runtime.feed([token])[None]) < 1e-3


WINDOW, FULL = "sliding_attention", "full_attention"


@heavy
@pytest.mark.parametrize(
    ("model_type", "kinds", "recipe", "kv_cache", "traced"),
    [
        ("llama", [FULL] * 6, "int4-nearest", "float", 3),
        ("stablelm", [FULL] * 5, "int8", "int8", 3),
        ("gemma3_text", [WINDOW, WINDOW, FULL] * 3, "int8", "float", 5),
        ("gemma2", [WINDOW, FULL] * 3, "float16", "float", 5),
    ],
)
def test_a_repeated_layer_is_written_as_a_traced_one(
    tmp_path: Path, model_type: str, kinds: list[str], recipe: str, kv_cache: KvCache, traced: int
) -> None:
    from kobako.targets.executorch import decoder

    from tests.families import with_layers

    source = with_layers(made_dir(tmp_path / "model"), model_type, kinds, write_tiny_tokenizer, recipe)
    options = ExportOptions(context_tokens=CONTEXT, kv_cache=kv_cache)
    repeated = TARGET.export(source, options, made_dir(tmp_path / "repeated"), no_progress)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "plan", lambda *_: None)
        whole = TARGET.export(source, options, made_dir(tmp_path / "whole"), no_progress)
    assert (repeated.details["traced_layers"], whole.details["traced_layers"]) == (traced, len(kinds))
    assert (repeated.directory / "model.pte").read_bytes() == (whole.directory / "model.pte").read_bytes()


@heavy
def test_layers_of_one_kind_that_differ_are_all_traced(tmp_path: Path) -> None:
    """The second of six equal layers is made to compute something else, which no setting tells."""
    from kobako.targets.executorch import decoder

    from tests.families import with_layers

    source = with_layers(made_dir(tmp_path / "model"), "llama", [FULL] * 6, write_tiny_tokenizer)
    built = decoder.build_model

    def odd(quantized: Quantized, position: Any) -> Any:
        model = built(quantized, position)
        layer = model.model.layers[1]
        layer.register_forward_hook(lambda _module, _inputs, output: output * 2.0)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "build_model", odd)
        made = TARGET.export(source, ExportOptions(context_tokens=CONTEXT), made_dir(tmp_path / "out"), no_progress)
    assert made.details["traced_layers"] == 6


@heavy
def test_the_tanh_form_of_gelu_is_computed_where_the_ordinary_lowering_takes_the_exact_one(tmp_path: Path) -> None:
    """Why exports of the Gemma family are off by 2e-5 to 2e-4 elsewhere."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge, to_edge_transform_and_lower
    from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer
    from kobako.targets.executorch.assemble import Lowering, host_module
    from kobako.targets.executorch.graph import flatten, simplify
    from kobako.targets.executorch.segments import split

    class Tanh(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.gelu(x, approximate="tanh")

    x = torch.linspace(-4.0, 4.0, 64)[None]
    program = torch.export.export(Tanh(), (x,), strict=False)
    flat = flatten(program)
    simplify(flat)
    steps = split(flat)
    host = host_module(flat, steps, Lowering(flat, steps, 1, {}, {}), lambda *_: None)
    ours = to_edge({"forward": torch.export.export(host, (x,), strict=False)}).to_executorch().buffer
    plain = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer
    said = [_load_for_executorch_from_buffer(buffer).forward([x])[0] for buffer in (ours, plain)]
    tanh, exact = Tanh()(x), torch.nn.functional.gelu(x)
    assert (said[0] - tanh).abs().max() < 1e-6
    assert (said[1] - exact).abs().max() < 1e-5  # the vendor's file computes the other function
    assert (said[1] - tanh).abs().max() > 1e-4


@heavy
def test_every_layer_is_one_delegate_and_few_operators_stay_outside(exported: Make) -> None:
    found = TARGET.inspect(exported("int4").directory / "model.pte")
    forward = found["methods"]["forward"]
    assert forward["inputs"] == [{"type": "long", "shape": [1, CONTEXT]}, {"type": "long", "shape": [1]}]
    assert forward["outputs"] == [{"type": "float", "shape": [1, 384]}]
    assert len(forward["delegates"]) == 4
    assert forward["host_operators"]["llama::update_cache.out"] == 4
    assert not {"aten::linear.out", "aten::mm.out", "aten::mul.out", "aten::mean.out"} & set(forward["host_operators"])
    assert (
        sum(delegate["constants"].get("qbint4", 0) for delegate in forward["delegates"]) == 8
    )  # a layer's: q, k and v; o; gate and up; down
    assert found["metadata"] == {
        "get_max_seq_len": CONTEXT, "get_max_context_len": CONTEXT, "get_eos_ids": 2, "get_bos_id": 1,
        "get_vocab_size": 384, "get_n_layers": 2, "use_kv_cache": True, "enable_dynamic_shape": True,
        "use_sdpa_with_kv_cache": True,
    }  # fmt: skip
    json.dumps(found)


@heavy
@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_layers_stored_as_one_say_the_same_to_the_last_bit(
    exported: Make, tiny: Callable[..., Quantized], recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kobako.targets.executorch.fuse.fuse_linears", lambda _flat: None)
    apart = TARGET.export(tiny(recipe), ExportOptions(context_tokens=CONTEXT), tmp_path, no_progress)
    calls = [
        sum(delegate["operators"].get("fully_connected", 0) for delegate in found["methods"]["forward"]["delegates"])
        for found in (TARGET.inspect(one.directory / "model.pte") for one in (apart, exported(recipe)))
    ]
    assert calls[1] == calls[0] - 2 * (3 if recipe == "int8" else 6)  # of each layer: q, k, v and gate, up; and beside
    np.testing.assert_array_equal(decode(TARGET.runtime(apart)), decode(TARGET.runtime(exported(recipe))))


@heavy
def test_a_tied_table_is_stored_once(exported: Make) -> None:
    tied, untied = exported("int8"), exported("int8", tied=False)
    table = 384 * 64
    assert tied.details["shared_table_bytes"] >= table
    assert untied.details["shared_table_bytes"] == 0
    assert tied.details["model_bytes"] < untied.details["model_bytes"] - table + 1024


@heavy
def test_the_engine_says_what_greedy_decoding_says(exported: Make) -> None:
    from tokenizers import Tokenizer

    made = exported("int8")
    tokenizer = Tokenizer.from_file(str(made.directory / "tokenizer.json"))
    prompt = "<|im_start|>A small box<|im_end|>The"
    runtime, ids = TARGET.runtime(made), tokenizer.encode(prompt).ids
    logits, wanted = runtime.feed(ids), []
    for _ in range(12):
        wanted.append(int(logits.argmax()))
        if wanted[-1] == 2:
            break
        logits = runtime.feed(wanted[-1:])
    engine, streamed = TARGET.engine(made), []
    assert isinstance(engine, Engine)
    said = engine.generate(prompt, 12, streamed.append)
    assert said.text == "".join(streamed) == tokenizer.decode(wanted, skip_special_tokens=True)
    assert said.prompt_tokens == len(ids)
    assert said.prefill_s >= 0 <= said.decode_s
    assert engine.generate(prompt, 12, lambda _: None).text == said.text
    assert said.token_ids == tuple(wanted)  # half a character: see engine.py
    with pytest.raises(UsageError):
        engine.generate("", 12, lambda _: None)
    engine.close()


@heavy
def test_the_runner_itself_says_what_greedy_decoding_says(exported: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on prompts whose answers hold no half characters, so that nothing but the C++ runner may speak."""
    from kobako.targets.executorch.engine import TextRunner
    from tokenizers import Tokenizer

    made = exported("int8")
    tokenizer = Tokenizer.from_file(str(made.directory / "tokenizer.json"))
    engine, runtime, compared = TARGET.engine(made), TARGET.runtime(made), 0
    monkeypatch.delattr(TextRunner, "continue_greedily")
    for prompt in ("The train", "A small box holds", "model", "speaks in whole", "goes on", "Une petite", "den Zug"):
        runtime.reset()
        logits, wanted = runtime.feed(tokenizer.encode(prompt).ids), []
        for _ in range(5):
            wanted.append(int(logits.argmax()))
            logits = runtime.feed(wanted[-1:])
        if all("\ufffd" not in tokenizer.decode([token]) and token > 2 for token in wanted):
            said = engine.generate(prompt, 5, lambda _: None)
            assert said.text == tokenizer.decode(wanted)
            assert said.token_ids is None
            assert said.generated_tokens == len(wanted)
            compared += 1
    assert compared


@heavy
def test_the_engine_stops_at_every_stop_token(tiny: Callable[..., Quantized], tmp_path: Path) -> None:
    """The token that greedy decoding says third is made a second stop token."""
    import shutil

    from tokenizers import Tokenizer

    source = tiny("int8")
    copy = tmp_path / "quantized"
    shutil.copytree(source.directory, copy)
    prompt = "The train goes"
    first = TARGET.export(source, ExportOptions(context_tokens=CONTEXT), made_dir(tmp_path / "a"), no_progress)
    runtime = TARGET.runtime(first)
    logits, said = (
        runtime.feed(Tokenizer.from_file(str(source.tokenizer_dir / "tokenizer.json")).encode(prompt).ids),
        [],
    )
    for _ in range(8):
        said.append(int(logits.argmax()))
        logits = runtime.feed(said[-1:])
    stop = said[2]
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, stop]}))
    changed = replace(source, directory=copy)
    second = TARGET.export(changed, ExportOptions(context_tokens=CONTEXT), made_dir(tmp_path / "b"), no_progress)
    assert TARGET.inspect(second.directory / "model.pte")["metadata"]["get_eos_ids"] == [2, stop]
    answer = TARGET.engine(second).generate(prompt, 8, lambda _: None)
    assert answer.generated_tokens <= said.index(stop) + 1 < 8


def made_dir(path: Path) -> Path:
    path.mkdir()
    return path


@heavy
def test_the_shipped_tokenizer_config_suits_the_phone(exported: Make) -> None:
    config = json.loads((exported("int8").directory / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "<|im_end|>"
    assert "<|im_start|>" in config["chat_template"]


@heavy
def test_special_tokens_given_as_objects_become_strings(tmp_path: Path) -> None:
    from kobako.targets.executorch.export import copy_tokenizer

    source, out = made_dir(tmp_path / "source"), made_dir(tmp_path / "out")
    (source / "tokenizer.json").write_text("{}")
    (source / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>", "special": True}}))
    (source / "chat_template.jinja").write_text("{{ messages }}")
    copy_tokenizer(source, out)
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert config == {"eos_token": "</s>", "chat_template": "{{ messages }}"}


@heavy
@pytest.mark.parametrize("damage", ["empty", "text", "head only", "truncated", "missing"])
def test_what_is_no_pte_is_refused(exported: Make, tmp_path: Path, damage: str) -> None:
    whole = (exported("int8").directory / "model.pte").read_bytes()
    content = {"empty": b"", "text": b"hello " * 100, "head only": whole[:40], "truncated": whole[: len(whole) // 2]}
    path = tmp_path / "model.pte"
    if damage in content:
        path.write_bytes(content[damage])
    broken = replace(exported("int8"), directory=tmp_path)
    for call in (
        lambda: TARGET.inspect(path),
        lambda: TARGET.runtime(broken),
        lambda: TARGET.engine(broken),
        lambda: list(TARGET.stored_weights(broken)),
    ):
        with pytest.raises(BadArtifact):
            call()


@heavy
def test_flipped_bytes_in_the_program_never_end_in_a_traceback(exported: Make, tmp_path: Path) -> None:
    whole = bytearray((exported("int8").directory / "model.pte").read_bytes())
    path, refused = tmp_path / "model.pte", 0
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for position in random.integers(0, 12_000, size=8):
            damaged[position] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            TARGET.inspect(path)
        except BadArtifact:
            refused += 1
    assert refused > 10


@heavy
def test_a_foreign_pte_has_no_names_to_read_back(exported: Make, tmp_path: Path) -> None:
    made = exported("int8")
    content = (made.directory / "model.pte").read_bytes().replace(b"kobako.names", b"foobar.names")
    (tmp_path / "model.pte").write_bytes(content)
    with pytest.raises(BadArtifact, match="does not tell the names"):
        list(TARGET.stored_weights(replace(made, directory=tmp_path)))


@heavy
@pytest.mark.parametrize(
    ("change", "context", "error", "words"),
    [
        ({}, 4096, UsageError, "longer than the model's 512"),
        ({}, 2, UsageError, "too short"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, 64, UnsupportedModel, "rope"),
        ({"layer_types": ["full_attention", "linear_attention"]}, 64, UnsupportedModel, "linear_attention"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tiny: Callable[..., Quantized],
    tmp_path: Path,
    change: dict[str, Any],
    context: int,
    error: type[Exception],
    words: str,
) -> None:
    import shutil

    source = tiny("int8")
    copy = tmp_path / "quantized"
    shutil.copytree(source.directory, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    changed = replace(source, directory=copy)
    with pytest.raises(error, match=words):
        TARGET.export(changed, ExportOptions(context_tokens=context), made_dir(tmp_path / "out"), no_progress)


@heavy
def test_a_probe_shows_the_hidden_state_after_each_layer(tiny: Callable[..., Quantized], tmp_path: Path) -> None:
    import torch
    from kobako.pipeline.reference.eager import quantized_model
    from kobako.targets.executorch.probe import probe_export, probe_states

    source = tiny("float16")
    path = probe_export(source, ExportOptions(context_tokens=CONTEXT), tmp_path, no_progress)
    states = probe_states(path, IDS)
    model = quantized_model(source)
    kept: list[Any] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _m, _i, out: kept.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        model(torch.tensor([IDS]))
    wanted = torch.cat(kept).numpy()
    assert states.shape == wanted.shape == (2, len(IDS), 64)
    np.testing.assert_allclose(states, wanted, atol=1e-3, rtol=1e-4)


def test_activations_are_told_by_recipe() -> None:
    told = {name: TARGET.activations(recipe) for name, recipe in RECIPES.items()}
    assert told == {name: "float32" if name == "float16" else "int8-dynamic" for name in RECIPES}
