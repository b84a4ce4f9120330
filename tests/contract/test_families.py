"""Every family × every target × {float16, int8}: exported, run in the real runtime, held against eager PyTorch.

With ``KOBAKO_SUPPORT=FILE`` the figures are written there: `scripts/support` keeps the table of supported families.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako import targets
from kobako.pipeline.contracts import ExportOptions, Quantized, no_progress
from kobako.pipeline.errors import UnsupportedModel
from kobako.pipeline.protocols import Abreast
from kobako.pipeline.standard import Kind, Standard, kind_of

from tests.conftest import write_tiny_tokenizer
from tests.contract.test_targets import need, standard_of
from tests.families import SHAPES, SIZES, Shape, config_of, make, random_values

pytestmark = pytest.mark.heavy

OPTIONS = ExportOptions(context_tokens=256, prefill_tokens=64)
RECIPES = ("float16", "int8")
CASES = [(shape, recipe, target) for shape in SHAPES for recipe in RECIPES for target in targets.names()]
THEIRS = [shape for shape in SHAPES if shape.model_type != "openelm"]  # which is held against its paper: test_openelm

Made = Callable[[Shape, str], Quantized]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """``made(shape, recipe)`` → a Quantized, made once."""
    known: dict[tuple[str, str], Quantized] = {}

    def get(shape: Shape, recipe: str) -> Quantized:
        key = (shape.model_type, recipe)
        if key not in known:
            known[key] = make(tmp_path_factory.mktemp("family"), shape, recipe, write_tiny_tokenizer)
        return known[key]

    return get


@pytest.fixture(scope="module")
def standards(made: Made) -> Callable[[Shape, str, str], Standard]:
    """What eager PyTorch says; targets that compute activations alike share it."""
    known: dict[tuple[str, str, Kind], Standard] = {}

    def get(shape: Shape, recipe: str, target: str) -> Standard:
        quantized = made(shape, recipe)
        key = (shape.model_type, recipe, kind_of(targets.get(target).activations(quantized.recipe)))
        if key not in known:
            known[key] = standard_of(quantized, target)
        return known[key]

    return get


def note(figures: dict[str, Any], shape: Shape, case: str, kl_nats: float) -> None:
    entry = figures.setdefault(shape.model_type, {"quirk": shape.quirk, "generic": shape.new, "kl_nats": {}})
    entry["kl_nats"][case] = float(f"{kl_nats:.1e}")


@pytest.mark.parametrize("case", CASES, ids=[f"{s.model_type}-{r}-{t}" for s, r, t in CASES])
def test_family(
    made: Made,
    standards: Callable[[Shape, str, str], Standard],
    figures: dict[str, Any],
    tmp_path: Path,
    case: tuple[Shape, str, str],
) -> None:
    from kobako.pipeline.validate.fidelity import check_weights, compare_decode, compare_prefill, key_errors
    from kobako.pipeline.validate.gates import LAYER_DEPARTURE, fidelity_gate

    shape, recipe, target = case
    need(target)
    artifact = targets.get(target).export(made(shape, recipe), OPTIONS, tmp_path, no_progress)
    standard = standards(shape, recipe, target)
    weights = check_weights(targets.get(target).stored_weights(artifact), standard.facts["weight_digests"])
    assert weights.passed, weights.detail
    gate = fidelity_gate(artifact.activations, standard.quality["noise"])
    with closing(targets.get(target).runtime(artifact)) as runtime:
        decode = compare_decode(runtime, standard, lambda _: None)
        prefill = compare_prefill(runtime, standard, lambda _: None)
        errors = key_errors(runtime, standard)
        if isinstance(runtime, Abreast):
            check_steps_together(runtime, standard.windows[0][:150].tolist())
    note(figures, shape, f"{target} {recipe}", max(decode.mean_kl, prefill.mean_kl))
    assert decode.mean_kl <= gate.kl_nats
    assert prefill.mean_kl <= gate.kl_nats
    # a random model's logits are nearly flat: rounded activations change a choice at 5e-5 nats, more so in more layers
    deep = artifact.activations == "int8-dynamic" and len(standard.keys) > SIZES["num_hidden_layers"]
    assert decode.top1 >= (0.93 if deep else 0.97)
    if errors is not None:
        assert max(errors) <= LAYER_DEPARTURE[artifact.activations]


def check_steps_together(runtime: Any, ids: list[int]) -> None:
    """Decode steps taken together say what they say one after the other, beyond any window of `tests.families`."""
    runtime.reset()
    runtime.feed(ids[:110])
    together = runtime.feed_each(ids[110:])
    keys = runtime.key_cache(0)
    runtime.reset()
    runtime.feed(ids[:110])
    single = np.stack([runtime.feed([one]) for one in ids[110:]])
    scale = np.abs(single).max()
    np.testing.assert_allclose(together, single, atol=4e-3 * scale)  # eight roundings to float16
    np.testing.assert_allclose(keys, runtime.key_cache(0), atol=4e-3 * np.abs(keys).max())


@pytest.mark.parametrize("bare", [False, True], ids=["whole", "bare"])
@pytest.mark.parametrize("shape", THEIRS, ids=[shape.model_type for shape in THEIRS])
def test_checkpoints_are_read_as_transformers_reads_them(shape: Shape, bare: bool, tmp_path: Path) -> None:
    """What `save_pretrained` writes, with and without the head around the bare model, gives the same logits."""
    import torch
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load
    from kobako.pipeline.reference.model import reference_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = config_of(shape)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if bare and not config.tie_word_embeddings:
        pytest.skip("a bare model has no head of its own")
    (model.base_model if bare else model).save_pretrained(tmp_path / "model")
    write_tiny_tokenizer(tmp_path / "tokenizer")
    for file in (tmp_path / "tokenizer").iterdir():
        file.rename(tmp_path / "model" / file.name)
    source = fetch(parse(str(tmp_path / "model")), tmp_path / "downloads", no_progress)
    (tmp_path / "reference").mkdir()
    ids = torch.arange(3, 90)[None]
    with torch.no_grad():
        ours = reference_model(load(source, tmp_path / "reference"))(ids).logits
        assert torch.allclose(ours, model(ids).logits, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.model_type for shape in SHAPES])
def test_smoothing_leaves_every_family_what_it_was(shape: Shape) -> None:
    """What a family says about which module feeds which is true of transformers' code."""
    import numpy as np
    import torch
    from kobako.pipeline import families
    from kobako.pipeline.reference.eager import empty_model, set_parameter
    from kobako.pipeline.smooth import smooth

    family, model = families.get(shape.model_type), empty_model(config_of(shape))
    values = {name: random_values(name, p.shape, family) for name, p in model.named_parameters()}
    inputs = {
        name: np.random.default_rng(len(name)).uniform(0.01, 100.0, module.in_features).astype(np.float32)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    smoothed = smooth(values, inputs, family, model.config.num_hidden_layers, 0.5)
    ids = torch.arange(3, 63)[None]
    logits = []
    for tensors in (values, smoothed):
        for name in values:
            set_parameter(model, name, torch.from_numpy(np.array(tensors[name])))
        model.tie_weights()
        with torch.no_grad():
            logits.append(model(ids).logits)
    assert torch.allclose(logits[0], logits[1], rtol=1e-3, atol=2e-3)
    changed = [name for name in values if not np.array_equal(values[name], smoothed[name])]
    assert bool(changed) == bool(family.feeds)


@pytest.mark.parametrize("target", targets.names())
def test_a_window_that_is_ignored_fails(made: Made, standards: Any, tmp_path: Path, target: str) -> None:
    """The proof text is long enough to tell a sliding layer from one that sees everything."""
    import shutil
    from dataclasses import replace

    from kobako.pipeline.validate.fidelity import compare_decode

    need(target)
    mistral = next(shape for shape in SHAPES if shape.model_type == "mistral")
    source = made(mistral, "float16")
    copy = Path(shutil.copytree(source.directory, tmp_path / "wide"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"sliding_window": None}))
    (tmp_path / "out").mkdir()
    artifact = targets.get(target).export(replace(source, directory=copy), OPTIONS, tmp_path / "out", no_progress)
    with closing(targets.get(target).runtime(artifact)) as runtime:
        assert compare_decode(runtime, standards(mistral, "float16", target), lambda _: None).mean_kl > 0.01


def test_layers_that_know_how_many_they_are_are_copied_whole(tmp_path: Path) -> None:
    """LiteRT traces three layers and copies the rest; MiniCPM3 scales each by the number of all."""
    from dataclasses import replace

    from kobako.pipeline.validate.fidelity import compare_decode

    need("litert")
    shape = next(shape for shape in SHAPES if shape.model_type == "minicpm3")
    deep = replace(shape, options={**shape.options, "num_hidden_layers": 5})
    source = make(tmp_path / "deep", deep, "float16", write_tiny_tokenizer)
    (tmp_path / "out").mkdir()
    artifact = targets.get("litert").export(source, OPTIONS, tmp_path / "out", no_progress)
    with closing(targets.get("litert").runtime(artifact)) as runtime:
        assert compare_decode(runtime, standard_of(source, "litert"), lambda _: None).mean_kl < 1e-4


@pytest.mark.parametrize("target", targets.names())
def test_longrope_beyond_its_base_context_is_refused(made: Made, tmp_path: Path, target: str) -> None:
    need(target)
    phi3 = next(shape for shape in SHAPES if shape.model_type == "phi3")
    with pytest.raises(UnsupportedModel, match=r"longrope .* 512 .*Use --context 256"):
        targets.get(target).export(made(phi3, "int8"), ExportOptions(context_tokens=512), tmp_path, no_progress)


def test_minicpm_is_what_its_formulas_say(tmp_path: Path) -> None:
    """Against a llama whose matrices have the multipliers in them: the same function, written otherwise."""
    import torch
    from kobako.pipeline import families
    from kobako.pipeline.families.minicpm import as_granite
    from kobako.pipeline.reference.eager import empty_model, load_config, set_parameter

    base = {key: value for key, value in SIZES.items() if key != "tie_word_embeddings"}
    base |= {"tie_word_embeddings": False, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
    minicpm = {**base, "model_type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16}
    models = []
    for name, config in (("mini", as_granite(minicpm)), ("llama", {**base, "model_type": "llama"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        models.append(empty_model(load_config(tmp_path / name)))
    factors = {"embed_tokens": 12.0, "o_proj": 1.4 / 2**0.5, "down_proj": 1.4 / 2**0.5, "lm_head": 16 / 64}
    for name, parameter in models[0].named_parameters():
        value = torch.from_numpy(random_values(name, parameter.shape, families.get("granite")))
        set_parameter(models[0], name, value)
        set_parameter(models[1], name, value * factors.get(name.split(".")[-2], 1.0))
    with torch.no_grad():
        logits = [model(torch.arange(3, 40)[None]).logits for model in models]
    assert torch.allclose(logits[0], logits[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", targets.names())
def test_mixtures_of_experts_are_refused(made: Made, tmp_path: Path, target: str) -> None:
    import shutil
    from dataclasses import replace

    need(target)
    source = made(next(shape for shape in SHAPES if shape.model_type == "mistral"), "int8")
    copy = Path(shutil.copytree(source.directory, tmp_path / "experts"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "mixtral", "num_local_experts": 4}))
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsupportedModel, match="mixtral has 4 experts"):
        targets.get(target).export(replace(source, directory=copy), OPTIONS, tmp_path / "out", no_progress)


@pytest.mark.parametrize("model_type", ["bart", "pegasus"])
def test_encoder_decoder_models_are_refused_by_name(model_type: str) -> None:
    from kobako.pipeline import families

    with pytest.raises(UnsupportedModel, match=f"architecture {model_type}: this encoder-decoder"):
        families.get(model_type)
