"""The LiteRT target on a small random model, in the real runtimes: LiteRT's CompiledModel and the LiteRT-LM engine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kobako import targets
from kobako.pipeline.contracts import Exported, ExportOptions, FloatArray, Quantized, no_progress
from kobako.pipeline.errors import BadArtifact, UnsupportedModel, UsageError
from kobako.pipeline.reference.layers import Plan, plan
from kobako.pipeline.weights import QuantizedTensor, open_weights

from tests.conftest import write_tiny_tokenizer

pytestmark = pytest.mark.heavy
pytest.importorskip("litert_torch")

OPTIONS = ExportOptions(context_tokens=64, prefill_tokens=16)
IDS = [int(i) for i in np.random.default_rng(5).integers(3, 384, 40)]
TARGET = targets.get("litert")
Export = Callable[..., tuple[Exported, Quantized]]


@pytest.fixture(scope="module")
def export(tiny: Callable[..., Quantized], tmp_path_factory: pytest.TempPathFactory) -> Export:
    made: dict[tuple[str, bool], tuple[Exported, Quantized]] = {}

    def get(recipe: str, tied: bool = True) -> tuple[Exported, Quantized]:
        if (recipe, tied) not in made:
            quantized = tiny(recipe, tied=tied)
            out = tmp_path_factory.mktemp(f"litert-{recipe}")
            made[recipe, tied] = (TARGET.export(quantized, OPTIONS, out, no_progress), quantized)
        return made[recipe, tied]

    return get


def reference_logits(quantized: Quantized, ids: list[int]) -> FloatArray:
    import torch
    from kobako.pipeline.reference.eager import quantized_model

    with torch.no_grad():
        return quantized_model(quantized)(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.fixture
def files(export: Export, tmp_path: Path) -> Path:
    """A directory with copies of the int8 artifact, to be damaged."""
    artifact, _ = export("int8")
    for name in ("model.tflite", "model.litertlm"):
        (tmp_path / name).write_bytes((artifact.directory / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("recipe", "tied"),
    [("int8", True), ("int8", False), ("int4", True), ("int4-small", True), ("int4-nearest", True), ("float16", False)],
)
def test_weights_come_back_bit_for_bit(export: Export, recipe: str, tied: bool) -> None:
    artifact, quantized = export(recipe, tied)
    given = open_weights(quantized.directory)
    stored = {weight.name: weight for weight in TARGET.stored_weights(artifact)}
    matrices = {name for name in given if given[name].ndim == 2} if recipe == "float16" else given._scaled
    assert set(stored) == matrices
    for name, weight in stored.items():
        expected = given[name]
        if isinstance(expected, QuantizedTensor):
            np.testing.assert_array_equal(weight.codes, expected.codes)
            np.testing.assert_array_equal(weight.scales, expected.scales)
            np.testing.assert_array_equal(weight.offsets, expected.offsets)
        else:
            np.testing.assert_array_equal(weight.codes, expected)


def test_float16_says_what_pytorch_says(export: Export) -> None:
    artifact, quantized = export("float16", False)
    expected = reference_logits(quantized, IDS)
    with closing(TARGET.runtime(artifact)) as runtime:
        decoded = np.stack([runtime.feed([token]) for token in IDS])
    np.testing.assert_allclose(decoded, expected, atol=1e-4)


def test_prefill_equals_decode_in_logits_and_keys_up_to_the_last_slot(export: Export) -> None:
    artifact, _ = export("int8")
    ids = (IDS * 2)[: OPTIONS.context_tokens]
    with closing(TARGET.runtime(artifact)) as runtime:
        at_once = runtime.feed(ids[:39])
        keys = runtime.key_cache(1)
        rest = runtime.feed(ids[39:])  # ends at the last slot: a whole chunk no longer fits there
        runtime.reset()
        stepwise = [runtime.feed([token]) for token in ids]
        np.testing.assert_array_equal(at_once, stepwise[38])
        np.testing.assert_array_equal(rest, stepwise[-1])
        np.testing.assert_array_equal(keys, runtime.key_cache(1)[:39])
        with pytest.raises(UsageError, match="do not fit"):
            runtime.feed([5])


def test_keys_of_the_first_layer_are_the_references(export: Export) -> None:
    import torch
    from kobako.pipeline.reference.eager import quantized_model

    artifact, quantized = export("float16", False)
    with torch.no_grad():
        cache = quantized_model(quantized)(input_ids=torch.tensor([IDS]), use_cache=True).past_key_values
    with closing(TARGET.runtime(artifact)) as runtime:
        runtime.feed(IDS)
        for layer in range(2):
            expected = cache.layers[layer].keys[0].permute(1, 0, 2).numpy()
            np.testing.assert_allclose(runtime.key_cache(layer), expected, atol=1e-4)


def test_without_the_delegate_the_numbers_are_the_same(export: Export) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    artifact, _ = export("float16", False)
    plain = Interpreter(
        str(artifact.directory / "model.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    ).get_signature_runner("decode")
    inputs = {name: np.zeros(value["shape"], value["dtype"]) for name, value in plain.get_input_details().items()}
    inputs["tokens"][...] = IDS[0]
    inputs["mask"][..., 1:] = -1e30
    with closing(TARGET.runtime(artifact)) as runtime:
        np.testing.assert_allclose(runtime.feed([IDS[0]]), plain(**inputs)["logits"][0, 0], atol=1e-4)


def test_engine_speaks_as_the_runtime_does(export: Export) -> None:
    from tokenizers import Tokenizer

    artifact, _ = export("float16", False)
    tokenizer = Tokenizer.from_file(str(artifact.directory / "tokenizer.json"))
    prompt = "The train goes"
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    with closing(TARGET.runtime(artifact)) as runtime:
        said = [int(np.argmax(runtime.feed(ids)))]
        while len(said) < 12 and said[-1] != 2:
            said.append(int(np.argmax(runtime.feed(said[-1:]))))
    with closing(TARGET.engine(artifact)) as engine:
        answer = engine.generate(prompt, 12, lambda _: None)
    assert answer.text == tokenizer.decode(said)


def test_engine_renders_the_template_and_leaves_no_files(export: Export) -> None:
    artifact, _ = export("int8")
    with closing(TARGET.engine(artifact)) as engine:
        assert engine.render("Hi\n") == "<|im_start|>user\nHi\n<|im_end|>\n<|im_start|>assistant\n"
        answer = engine.generate("The train", 5, lambda _: None)
        assert answer.generated_tokens <= 5
        assert answer.prompt_tokens == len(engine._engine.tokenize("The train"))
        with pytest.raises(UsageError, match="does not fit"):
            engine.generate("train " * 100, 5, lambda _: None)
    assert {path.name for path in artifact.directory.iterdir()} == set(artifact.files)


def test_inspect_tells_signatures_operators_and_bytes(export: Export) -> None:
    artifact, quantized = export("int4-nearest")
    told = TARGET.inspect(artifact.directory / "model.litertlm")
    json.dumps(told)
    model = told["model"]
    assert set(model["signatures"]) == {"prefill_16", "decode"}
    assert model["signatures"]["decode"]["inputs"]["kv_cache_v_1"]["shape"] == [1, 2, 16, 64]
    assert model["signatures"]["decode"]["operators"]["FULLY_CONNECTED"] == 11
    assert told["metadata"]["max_num_tokens"] == 64
    given = open_weights(quantized.directory)
    linears = sum(given[name].codes.size for name in given if getattr(given[name], "bits", None) == 4)
    assert model["constant_bytes"]["INT4"] == linears // 2
    assert model["constant_bytes"]["INT8"] == 384 * 64  # the tied matrix once
    assert TARGET.inspect(artifact.directory / "model.tflite")["signatures"] == model["signatures"]


@pytest.mark.parametrize("name", ["model.tflite", "model.litertlm"])
def test_damaged_files_are_refused_and_never_crash(files: Path, name: str) -> None:
    path = files / name
    good = path.read_bytes()
    for length in (0, 3, 20, 5000, len(good) // 2, len(good) - 1000):
        path.write_bytes(good[:length])
        with pytest.raises(BadArtifact):
            TARGET.inspect(path)
    rng = np.random.default_rng(0)
    damaged = np.frombuffer(good, np.uint8).copy()
    damaged[rng.integers(0, 16384 if name.endswith("lm") else len(damaged), 400)] ^= 0xFF
    path.write_bytes(damaged.tobytes())
    with contextlib.suppress(BadArtifact):  # damage inside weights is found by digests, not here
        TARGET.inspect(path)


def test_a_container_with_another_model_is_refused(export: Export, files: Path) -> None:
    artifact, _ = export("int8")
    path = files / "model.litertlm"
    data = bytearray(path.read_bytes())
    data[-100_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadArtifact, match="carries another model"):
        next(iter(TARGET.stored_weights(replace(artifact, directory=files))))


def test_what_cannot_be_exported_is_refused_before_tracing(tiny: Callable[..., Quantized], tmp_path: Path) -> None:
    from kobako.pipeline.reference.eager import load_config
    from kobako.targets.litert.export import check

    quantized = tiny("int8")
    with pytest.raises(UsageError, match="longer than the model's 512"):
        TARGET.export(quantized, ExportOptions(context_tokens=513), tmp_path, no_progress)
    assert not list(tmp_path.iterdir())
    config = load_config(quantized.directory)
    config.rope_parameters = {"rope_type": "longrope", "rope_theta": 1e4}
    with pytest.raises(UnsupportedModel, match="longrope"):
        check(config, OPTIONS)


def test_weights_may_follow_the_flatbuffer(export: Export, tmp_path: Path) -> None:
    """Models above 1.5 GB: the same graph, its buffers behind it."""
    from kobako.targets.litert import flatbuffer
    from kobako.targets.litert.runtime import LiteRTRuntime

    artifact, _ = export("int8")
    model = flatbuffer.load_model((artifact.directory / "model.tflite").read_bytes())
    model.buffers = [
        flatbuffer.constant(np.zeros(0, np.uint8) if one.data is None else np.asarray(one.data))
        for one in model.buffers
    ]
    path = tmp_path / "appended.tflite"
    flatbuffer.write_model(model, path, inline_limit_bytes=0)
    with closing(TARGET.runtime(artifact)) as inline, closing(LiteRTRuntime(path)) as appended:
        np.testing.assert_array_equal(inline.feed(IDS), appended.feed(IDS))


def both_ways(quantized: Quantized, home: Path, room: str, instead: Callable[..., object]) -> list[Exported]:
    """The artifact as it is written, and as it would be with another function of the target in place of `room`."""
    made: list[Exported] = []
    for way in ("short", "long"):
        out = home / way
        out.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            if way == "long":
                patch.setattr(f"kobako.targets.litert.{room}", instead)
            made.append(TARGET.export(quantized, OPTIONS, out, no_progress))
    return made


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gemma2"])
def test_a_repeated_layer_is_the_same_as_a_traced_one(
    tiny: Callable[..., Quantized], tmp_path: Path, model_type: str
) -> None:
    from kobako.targets.litert.runtime import LiteRTRuntime

    from tests.families import with_layers

    (tmp_path / "model").mkdir()
    window, full = "sliding_attention", "full_attention"
    kinds = [window, window, full] * 3 if model_type == "gemma3_text" else [window, full] * 4
    quantized = (
        tiny("float16", layers=6)
        if model_type == "llama"
        else with_layers(tmp_path / "model", model_type, kinds, write_tiny_tokenizer)
    )
    artifacts = both_ways(quantized, tmp_path, "export.plan", lambda _config: None)
    written = [one.directory / "model.tflite" for one in artifacts]
    told = [TARGET.inspect(path) for path in written]
    for part in ("signatures", "constant_bytes"):
        assert told[0][part] == told[1][part]
    with closing(LiteRTRuntime(written[0])) as repeated, closing(LiteRTRuntime(written[1])) as whole:
        logits = repeated.feed(IDS)
        np.testing.assert_array_equal(logits, whole.feed(IDS))
        np.testing.assert_array_equal(repeated.key_cache(5), whole.key_cache(5))
    if model_type == "llama":
        np.testing.assert_allclose(logits, reference_logits(quantized, IDS)[-1], atol=1e-4)


@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_joined_layers_compute_the_same_to_the_last_bit(
    tiny: Callable[..., Quantized], tmp_path: Path, recipe: str
) -> None:
    from kobako.targets.litert.runtime import LiteRTRuntime

    written = both_ways(tiny(recipe), tmp_path, "rewrite.groups", lambda graphs, _weights: [[] for _ in graphs])
    layers = [signature_operators(one.directory / "model.tflite")["FULLY_CONNECTED"] for one in written]
    assert layers[0] < layers[1]
    sizes = [(one.directory / "model.tflite").stat().st_size for one in written]
    assert sizes[0] < sizes[1] + 4000  # no weight is in the file twice
    stored = [{one.name: one for one in TARGET.stored_weights(artifact)} for artifact in written]
    assert stored[0].keys() == stored[1].keys()
    for name, weight in stored[0].items():
        np.testing.assert_array_equal(weight.codes, stored[1][name].codes)
        np.testing.assert_array_equal(weight.scales, stored[1][name].scales)
    with (
        closing(LiteRTRuntime(written[0].directory / "model.tflite")) as joined,
        closing(LiteRTRuntime(written[1].directory / "model.tflite")) as apart,
    ):
        np.testing.assert_array_equal(joined.feed(IDS), apart.feed(IDS))
        np.testing.assert_array_equal(joined.feed([7]), apart.feed([7]))


def signature_operators(path: Path) -> dict[str, int]:
    """How many operators of each kind a decode step has."""
    counted: dict[str, int] = TARGET.inspect(path)["signatures"]["decode"]["operators"]
    return counted


def plan_of(kinds: str, **settings: object) -> Plan | None:
    return plan(SimpleNamespace(num_hidden_layers=len(kinds), layer_types=list(kinds), **settings))


def test_two_layers_of_each_kind_are_traced_and_the_last() -> None:
    assert plan_of("aaaaaa") == Plan((0, 1, 5), (0, 1, 1, 1, 1, 2), ((0, 1),))
    assert plan_of("aabaabaab") == Plan((0, 1, 2, 5, 8), (0, 1, 2, 1, 1, 3, 1, 1, 4), ((0, 1), (2, 3)))
    assert plan_of("baaaab") == Plan((0, 1, 2, 5), (0, 1, 2, 2, 2, 3), ((0, 0), (1, 2)))


def test_layers_that_must_all_be_traced() -> None:
    assert plan_of("aaa") is None
    assert plan_of("abcdef") is None
    assert plan_of("aaaaaa", num_kv_shared_layers=2) is None
    assert plan_of("aaaaaa", hidden_size_per_layer_input=8) is None
    assert plan_of("aaaaaa", is_heterogeneous=True) is None


def test_equal_vectors_are_stored_once(tmp_path: Path) -> None:
    from kobako.targets.litert.flatbuffer import model_builder

    builder, plain = model_builder(), np.zeros(500, np.int64)
    places = [
        builder.CreateNumpyVector(vector) for vector in (plain, plain.copy(), plain[:499], plain.view(np.float64))
    ]
    assert places[0] == places[1]
    assert len(set(places)) == 3
