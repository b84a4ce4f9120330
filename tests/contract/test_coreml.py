"""The Core ML target on tiny random models: export, our interpreter on the saved bytes, readback, refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import Exported, ExportOptions, Quantized, no_progress
from kobako.pipeline.errors import BadArtifact, UnsupportedModel, UsageError
from kobako.pipeline.protocols import Engine, LayerProbe, Runtime
from kobako.pipeline.weights import QuantizedTensor, open_weights, write_weights
from kobako.targets.coreml import PACKAGE, TARGET

pytestmark = pytest.mark.heavy

OPTIONS = ExportOptions(context_tokens=48, prefill_tokens=16)
IDS = [(7 * i * i + 3 * i + 11) % 384 for i in range(44)]
Make = Callable[..., Quantized]


@pytest.fixture(scope="session")
def exported(tiny: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """``exported(recipe, tied=True)`` → an artifact; made once per combination."""
    made: dict[tuple[str, bool], Exported] = {}

    def get(recipe: str, *, tied: bool = True) -> Exported:
        if (recipe, tied) not in made:
            out = tmp_path_factory.mktemp("coreml")
            made[recipe, tied] = TARGET.export(tiny(recipe, tied=tied), OPTIONS, out, no_progress)
        return made[recipe, tied]

    return get


def reference(quantized: Quantized, ids: list[int]) -> tuple[Any, Any]:
    """Logits ``[T, V]`` of the quantized reference in float32, and its cache."""
    import torch
    from kobako.pipeline.reference.eager import quantized_model

    with torch.no_grad():
        out = quantized_model(quantized)(torch.tensor([ids]), use_cache=True)
    return out.logits[0].double(), out.past_key_values


def kl_nats(wanted: Any, got: np.ndarray) -> Any:
    """KL divergence per token."""
    import torch

    p = torch.log_softmax(wanted, -1)
    return (p.exp() * (p - torch.log_softmax(torch.from_numpy(got).double(), -1))).sum(-1)


@pytest.mark.parametrize("recipe", ["float16", "int8", "int4", "int4-small", "int4-nearest"])
def test_float16_emulation_says_what_the_reference_says(
    tiny: Make, exported: Callable[..., Exported], recipe: str
) -> None:
    wanted, cache = reference(tiny(recipe), IDS)
    runtime = TARGET.runtime(exported(recipe))
    assert isinstance(runtime, Runtime)
    assert isinstance(runtime, LayerProbe)
    single = np.stack([runtime.feed([token]) for token in IDS])
    assert float(kl_nats(wanted, single).mean()) < 1e-4
    assert (wanted.argmax(-1).numpy() == single.argmax(-1)).mean() >= 0.99
    for layer in range(2):
        keys = cache.layers[layer].keys[0].permute(1, 0, 2).numpy()
        np.testing.assert_allclose(runtime.key_cache(layer), keys, atol=0.02)
    runtime.reset()
    runtime.feed(IDS[:5])  # a short chunk: 11 padded slots must leave no trace
    chunked = np.stack([runtime.feed(IDS[5:26]), runtime.feed(IDS[26:27]), runtime.feed(IDS[27:])])
    assert float(kl_nats(wanted[[25, 26, 43]], chunked).max()) < 1e-4
    runtime.close()


def test_float32_mode_is_nearly_exact(tiny: Make, exported: Callable[..., Exported]) -> None:
    from kobako.targets.coreml.runtime import open_runtime

    wanted, _ = reference(tiny("int8"), IDS)
    runtime = open_runtime(exported("int8").directory / PACKAGE, "float32")
    # What remains are norm weights and rotary tables, which the package stores as float16.
    np.testing.assert_allclose(runtime.feed(IDS[:40]), wanted[39].numpy(), atol=5e-3)
    half = TARGET.runtime(exported("int8")).feed(IDS[:40])
    assert np.abs(half - wanted[39].numpy()).max() > np.abs(runtime.feed(IDS[40:41]) - wanted[40].numpy()).max()


def test_context_is_a_limit_and_its_last_slots_are_usable(tiny: Make, exported: Callable[..., Exported]) -> None:
    ids = [*IDS, 5, 6, 7, 8]
    wanted, _ = reference(tiny("int8"), ids)
    runtime = TARGET.runtime(exported("int8"))
    runtime.feed(ids[:40])
    logits = runtime.feed(ids[40:])  # a chunk of 16 from slot 40 would leave the cache of 48
    assert float(kl_nats(wanted[-1:], logits[None]).max()) < 1e-4
    with pytest.raises(UsageError, match="context of 48"):
        runtime.feed([1])
    with pytest.raises(UsageError, match="0 to 383"):
        runtime.feed([384])


@pytest.mark.parametrize(
    ("recipe", "tied"),
    [("float16", True), ("int8", True), ("int8", False), ("int4", True), ("int4-small", True), ("int4-nearest", True)],
)
def test_stored_weights_are_the_given_codes_and_scales(
    tiny: Make, exported: Callable[..., Exported], recipe: str, tied: bool
) -> None:
    given = open_weights(tiny(recipe, tied=tied).directory)
    matrices = [name for name in given if name.endswith(("proj.weight", "embed_tokens.weight", "lm_head.weight"))]
    stored = {one.name: one for one in TARGET.stored_weights(exported(recipe, tied=tied))}
    assert sorted(stored) == sorted(matrices)
    for name in matrices:
        tensor = given[name]
        if isinstance(tensor, QuantizedTensor):
            np.testing.assert_array_equal(stored[name].codes, tensor.codes)
            assert stored[name].codes.dtype == np.int8
            np.testing.assert_array_equal(stored[name].scales, tensor.scales)
            np.testing.assert_array_equal(stored[name].offsets, tensor.offsets)
        else:
            np.testing.assert_array_equal(stored[name].codes, tensor)
            assert stored[name].scales is None


@pytest.mark.parametrize("recipe", ["float16", "int8", "int4"])
def test_matrices_beyond_the_budget_are_made_when_needed_and_say_the_same(
    exported: Callable[..., Exported], recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kobako.targets.coreml.mil import weights

    def answers() -> Any:
        runtime = TARGET.runtime(exported(recipe))
        said = np.stack([runtime.feed(IDS[:20]), runtime.feed(IDS[20:21]), runtime.feed(IDS[21:30])])
        return said, sum(one.nbytes for one in runtime._session._constants._made.values())

    wanted, kept = answers()
    monkeypatch.setattr(weights, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(weights, "SMALL_BYTES", 2048)  # a matrix of 32 × 64 is not small here
    said, left = answers()
    np.testing.assert_array_equal(said, wanted)
    matrices = 2 * (64 * 64 * 2 + 32 * 64 * 2 + 192 * 64 * 3)
    table = 0 if recipe != "float16" else 384 * 64  # its rows are looked up in the whole
    assert kept - left >= 2 * matrices + (2 * 384 * 64 if not table else 0)


def test_a_closed_runtime_gives_its_matrices_back(exported: Callable[..., Exported]) -> None:
    """At once: a proof opens two of them, one after the other."""
    import weakref

    runtime = TARGET.runtime(exported("int8"))
    runtime.feed(IDS[:20])
    runtime.feed(IDS[20:21])
    kept = [weakref.ref(tensor) for tensor in runtime._session._constants._made.values() if tensor.nbytes > 4096]
    assert kept
    runtime.close()
    assert [one for one in kept if one() is not None] == []


def test_values_are_dropped_after_their_last_use(exported: Callable[..., Exported]) -> None:
    from kobako.targets.coreml.mil.interpreter import Interpreter
    from kobako.targets.coreml.mil.program import read_package

    interpreter = Interpreter(read_package(exported("int8").directory / PACKAGE))
    inputs = {"input_ids": np.array([IDS[:16]]), "position": np.array([0]), "last_index": np.array([15])}
    compiled = interpreter._function("prefill")
    env = interpreter._execute(compiled, [interpreter._begin(compiled, inputs)], keep=False)[0]
    looked_at = {*compiled.watched, *compiled.outputs.values()}
    computed = {slot for slot, operation in compiled.floats}
    assert len(computed - looked_at) > 50
    assert [slot for slot in computed - looked_at if env[slot] is not None] == []
    kept = interpreter._execute(compiled, [interpreter._begin(compiled, inputs)], keep=True)[0]
    assert [slot for slot in computed if kept[slot] is None] == []


def test_tracing_makes_no_matrix_of_what_it_is_fed() -> None:
    import torch
    from kobako.targets.coreml.lower import unworked

    class Head(torch.nn.Module):
        def forward(self, x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, matrix)

    fed = torch.zeros(()).expand(1 << 22, 1 << 12)  # 64 GB, were it whole
    with torch.no_grad(), unworked():
        traced = torch.jit.trace(Head(), (torch.zeros(1, 3, 1 << 12), fed), check_trace=False)
    assert "aten::linear" in str(traced.graph)


def test_inspect_tells_functions_states_and_bytes(exported: Callable[..., Exported]) -> None:
    told = TARGET.inspect(exported("int4").directory / PACKAGE)
    json.dumps(told)
    assert set(told["functions"]) == {"decode", "prefill"}
    prefill, decode = told["functions"]["prefill"], told["functions"]["decode"]
    assert set(prefill["inputs"]) == {"input_ids", "position", "last_index"}
    assert set(decode["inputs"]) == {"input_ids", "position"}
    assert decode["states"]["k_cache_1"] == {"dtype": "float16", "shape": [1, 2, 48, 16]}
    assert decode["operations"]["scaled_dot_product_attention"] == 2
    assert decode["operations"]["linear"] == 15
    assert "tile" not in decode["operations"]
    # Both functions and the tied head share one copy: 2 layers of 4-bit matrices, one 8-bit embedding.
    assert told["weight_bytes"]["int8"] == 384 * 64
    assert told["weight_bytes"]["int4"] == 2 * (64 * 64 * 2 + 32 * 64 * 2 + 192 * 64 * 3) // 2
    assert told["metadata"]["kobako.stop_ids"] == [2]
    assert told["metadata"]["kobako.context_tokens"] == 48


def test_coremltools_accepts_every_operation_and_type(exported: Callable[..., Exported]) -> None:
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models.utils import load_spec

    package = exported("int4").directory / PACKAGE
    spec = load_spec(str(package))
    weights = package / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, spec.specificationVersion, str(weights))
    program.validate()
    assert set(program.functions) == {"decode", "prefill"}


def test_engine_generates_what_the_reference_would(tiny: Make, exported: Callable[..., Exported]) -> None:
    artifact = exported("int8")
    engine = TARGET.engine(artifact)
    assert isinstance(engine, Engine)
    pieces: list[str] = []
    said = engine.generate("The train goes through", 12, pieces.append)
    assert "".join(pieces) == said.text
    assert said.token_ids is not None
    from kobako.pipeline.tokens import ShippedTokenizer

    ids = ShippedTokenizer(artifact.directory).encode_prompt("The train goes through")
    assert said.prompt_tokens == len(ids)
    wanted: list[int] = []
    for _ in range(12):
        token = int(reference(tiny("int8"), [*ids, *wanted])[0][-1].argmax())
        if token == 2:
            break
        wanted.append(token)
    assert list(said.token_ids) == wanted
    assert engine.generate("The train goes through", 500, lambda _: None).generated_tokens <= 48 - len(ids) + 1
    engine.close()


def scaled_up(source: Quantized, directory: Path) -> Quantized:
    """The same model with one channel of the residual stream a thousand times larger, as real models have."""
    shutil.copytree(source.directory, directory, dirs_exist_ok=True)
    tensors = dict(open_weights(source.directory).items())
    embedding = np.array(tensors["model.embed_tokens.weight"])
    embedding[:, 3] = 600.0
    write_weights(directory / "weights.safetensors", {**tensors, "model.embed_tokens.weight": embedding}.items())
    return dataclasses.replace(source, directory=directory)


def test_naive_norm_overflows_and_is_named(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kobako.targets.coreml import graph
    from kobako.targets.coreml.mil.interpreter import Interpreter
    from kobako.targets.coreml.mil.program import read_package

    model = scaled_up(tiny("float16"), tmp_path / "model")
    for name in ("safe", "naive"):
        (tmp_path / name).mkdir()
    safe = TARGET.export(model, OPTIONS, tmp_path / "safe", no_progress)
    wanted, _ = reference(model, IDS[:3])
    got = np.stack([TARGET.runtime(safe).feed(IDS[:count]) for count in (1, 2, 3)])
    assert float(kl_nats(wanted, got).mean()) < 1e-3

    def naive(self: Any, x: Any) -> Any:
        import torch

        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * self.weight

    monkeypatch.setattr(graph.SafeNorm, "forward", naive)
    broken = TARGET.export(model, OPTIONS, tmp_path / "naive", no_progress)
    with pytest.raises(BadArtifact, match=r"operation mul \(.+ → .+\): its output is infinite \(largest input 600"):
        TARGET.runtime(broken).feed([5])
    inputs = {"input_ids": np.array([[5]]), "position": np.array([0])}
    program = read_package(broken.directory / PACKAGE)
    Interpreter(program, "float32").run("decode", inputs)  # without rounding nothing is wrong: only float16 shows it
    recorder = Interpreter(read_package(safe.directory / PACKAGE), record=True)
    recorder.run("decode", inputs)
    assert 600 <= max(recorder.magnitudes().values()) < 65504


def damaged(artifact: Exported, directory: Path) -> Path:
    """A copy of the package, to be damaged."""
    return Path(shutil.copytree(artifact.directory / PACKAGE, directory / PACKAGE))


def test_damaged_packages_are_refused(exported: Callable[..., Exported], tmp_path: Path) -> None:
    for kind in ("weights", "model", "manifest", "outside"):
        package = damaged(exported("int8"), tmp_path / kind)
        data = package / "Data" / "com.apple.CoreML"
        if kind == "weights":
            whole = (data / "weights" / "weight.bin").read_bytes()
            (data / "weights" / "weight.bin").write_bytes(whole[: len(whole) // 2])
        elif kind == "model":
            (data / "model.mlmodel").write_bytes((data / "model.mlmodel").read_bytes()[:5000])
        elif kind == "manifest":
            (package / "Manifest.json").unlink()
        else:
            text = (package / "Manifest.json").read_text().replace("com.apple.CoreML/model.mlmodel", "../../../x")
            (package / "Manifest.json").write_text(text)
        artifact = dataclasses.replace(exported("int8"), directory=package.parent)
        with pytest.raises(BadArtifact):
            TARGET.inspect(package)
        with pytest.raises(BadArtifact):
            TARGET.runtime(artifact)
        with pytest.raises(BadArtifact):
            list(TARGET.stored_weights(artifact))


def test_unknown_operation_is_named(exported: Callable[..., Exported], tmp_path: Path) -> None:
    from kobako.targets.coreml.mil.proto import schema

    package = damaged(exported("int8"), tmp_path / "unknown")
    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = schema("Model_pb2").Model()
    model.ParseFromString(file.read_bytes())
    function = model.mlProgram.functions["decode"]
    operations = function.block_specializations[function.opset].operations
    next(one for one in operations if one.type == "silu").type = "swoosh"
    file.write_bytes(model.SerializeToString())
    runtime = TARGET.runtime(dataclasses.replace(exported("int8"), directory=package.parent))
    with pytest.raises(BadArtifact, match=r"operation swoosh .+ does not know it"):
        runtime.feed([5])


def test_reading_a_package_does_not_import_coremltools(exported: Callable[..., Exported]) -> None:
    code = (
        "import sys, pathlib; from kobako.targets.coreml import TARGET; TARGET.inspect(pathlib.Path(sys.argv[1]));"
        "assert not {'coremltools', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(exported("int8").directory / PACKAGE)], check=True)


def test_same_input_gives_the_same_bytes(tiny: Make, exported: Callable[..., Exported], tmp_path: Path) -> None:
    again = TARGET.export(tiny("int8"), OPTIONS, tmp_path, no_progress)
    assert again.files == exported("int8").files
    for name in again.files:
        assert (tmp_path / name).read_bytes() == (exported("int8").directory / name).read_bytes(), name


def with_config(source: Quantized, directory: Path, **changes: Any) -> Quantized:
    """The same weights under a changed config."""
    shutil.copytree(source.directory, directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **changes}))
    return dataclasses.replace(source, directory=directory)


def test_what_cannot_be_exported_is_refused(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="longer than the model's 512"):
        TARGET.export(tiny("int8"), ExportOptions(context_tokens=1024), tmp_path, no_progress)
    with pytest.raises(UsageError, match="do not fit a context of 48"):
        TARGET.export(tiny("int8"), ExportOptions(context_tokens=48, prefill_tokens=64), tmp_path, no_progress)
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    dynamic = with_config(tiny("int8"), tmp_path / "dynamic", rope_parameters=rope)
    with pytest.raises(UnsupportedModel, match="dynamic"):
        TARGET.export(dynamic, OPTIONS, tmp_path, no_progress)
    assert not list(tmp_path.glob("*.ml*"))
