"""Every target × every recipe on a small random model: weights bit for bit, decode, prefill, stored keys, generation.

The runtimes are the real ones; the standard is eager PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from kobako import targets
from kobako.pipeline.contracts import RECIPES, Exported, ExportOptions, Quantized, no_progress
from kobako.pipeline.standard import FullLogits, Standard, kind_of

pytestmark = pytest.mark.heavy

OPTIONS = ExportOptions(context_tokens=256)
PROMPT = "The train goes through a tunnel"
CASES = [(name, recipe) for name in targets.names() for recipe in RECIPES]


def standard_of(quantized: Quantized, target: str) -> Standard:
    from kobako.pipeline.continuation import Prompts
    from kobako.pipeline.expect import _weight_digests, answers_of
    from kobako.pipeline.prooftext import proof_windows
    from kobako.pipeline.reference.eager import quantized_model
    from kobako.pipeline.tokens import ShippedTokenizer

    kind = kind_of(targets.get(target).activations(quantized.recipe))
    tokenizer = ShippedTokenizer(quantized.tokenizer_dir)
    windows = proof_windows(tokenizer, OPTIONS.context_tokens)[:1, :200]
    answers = answers_of(quantized_model(quantized), kind, windows, Prompts([tokenizer.encode(PROMPT)], (2,)))
    floats = (
        answers
        if kind == "float"
        else answers_of(quantized_model(quantized), "float", windows, Prompts([tokenizer.encode(PROMPT)], (2,)))
    )
    return Standard(
        recipe=quantized.recipe,
        kind=kind,
        windows=windows,
        divergence=FullLogits(answers.logits),
        float_divergence=FullLogits(floats.logits),
        keys=answers.keys,
        facts={
            "prompts": [PROMPT],
            "stop_ids": [2],
            "weight_digests": _weight_digests(quantized),
            kind: {
                "greedy": answers.greedy,
                "margins": answers.margins,
                "noise": {"kl_nats": 0.0, "top1": 1.0, "margin": 0.0},
            },
        },
    )


@pytest.fixture(scope="module")
def exported(
    tiny: Callable[..., Quantized], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Exported, Quantized]]:
    made: dict[tuple[str, str], tuple[Exported, Quantized]] = {}

    def get(target: str, recipe: str) -> tuple[Exported, Quantized]:
        if (target, recipe) not in made:
            quantized = tiny(recipe)
            out = tmp_path_factory.mktemp(f"{target}-{recipe}")
            made[target, recipe] = (targets.get(target).export(quantized, OPTIONS, out, no_progress), quantized)
        return made[target, recipe]

    return get


def need(target: str) -> None:
    if missing := targets.missing_modules(targets.get(target)):
        pytest.skip(f"{missing} not installed")


@pytest.mark.parametrize(("target", "recipe"), CASES)
def test_artifact_is_faithful(
    exported: Callable[[str, str], tuple[Exported, Quantized]], target: str, recipe: str
) -> None:
    from kobako.pipeline.validate.fidelity import check_weights, compare_decode, compare_prefill, key_errors
    from kobako.pipeline.validate.gates import LAYER_DEPARTURE, fidelity_gate

    need(target)
    artifact, quantized = exported(target, recipe)
    standard = standard_of(quantized, target)
    weights = check_weights(targets.get(target).stored_weights(artifact), standard.facts["weight_digests"])
    assert weights.passed, weights.detail
    gate = fidelity_gate(artifact.activations, standard.quality["noise"])
    with closing(targets.get(target).runtime(artifact)) as runtime:
        decode = compare_decode(runtime, standard, lambda _: None)
        prefill = compare_prefill(runtime, standard, lambda _: None)
        errors = key_errors(runtime, standard)
    assert decode.mean_kl <= gate.kl_nats
    assert prefill.mean_kl <= gate.kl_nats
    # a random model's logits are nearly flat: rounded activations change a choice at 5e-5 nats
    assert decode.top1 >= (0.93 if artifact.activations == "int8-dynamic" else 0.97)
    if errors is not None:
        assert max(errors) <= LAYER_DEPARTURE[artifact.activations]


@pytest.mark.parametrize("target", targets.names())
def test_another_models_artifact_fails_the_same_proof(
    exported: Callable[[str, str], tuple[Exported, Quantized]], tiny: Callable[..., Quantized], target: str
) -> None:
    from kobako.pipeline.validate.fidelity import check_weights, compare_decode

    need(target)
    artifact, _ = exported(target, "int8")
    other = standard_of(tiny("int8", seed=1), target)
    assert not check_weights(targets.get(target).stored_weights(artifact), other.facts["weight_digests"]).passed
    with closing(targets.get(target).runtime(artifact)) as runtime:
        assert compare_decode(runtime, other, lambda _: None).mean_kl > 0.02


@pytest.mark.parametrize("target", targets.names())
def test_files_are_complete_and_ship_the_tokenizer(
    exported: Callable[[str, str], tuple[Exported, Quantized]], target: str
) -> None:
    need(target)
    artifact, quantized = exported(target, "int8")
    on_disk = {str(p.relative_to(artifact.directory)) for p in artifact.directory.rglob("*") if p.is_file()}
    assert set(artifact.files) == on_disk
    assert {"tokenizer.json", "tokenizer_config.json"} <= on_disk
    shipped, given = artifact.directory / "tokenizer.json", quantized.tokenizer_dir / "tokenizer.json"
    assert shipped.read_bytes() == given.read_bytes()


@pytest.mark.parametrize("target", targets.names())
def test_the_engine_continues_as_the_runtime_does(
    exported: Callable[[str, str], tuple[Exported, Quantized]], target: str
) -> None:
    from kobako.pipeline.tokens import ShippedTokenizer

    need(target)
    artifact, _ = exported(target, "int8")
    tokenizer = ShippedTokenizer(artifact.directory)
    with closing(targets.get(target).runtime(artifact)) as runtime:
        ids, said = tokenizer.encode(PROMPT), []
        while len(said) < 8:
            token = int(np.argmax(runtime.feed(ids)))
            if token == 2:
                break
            said.append(token)
            ids = [token]
    pieces: list[str] = []
    with closing(targets.get(target).engine(artifact)) as engine:
        answer = engine.generate(PROMPT, 8, pieces.append)
        again = engine.generate(PROMPT, 8, lambda _: None)
    assert "".join(pieces) == answer.text
    assert answer.text.strip().startswith(tokenizer.decode(said).strip().rstrip("\ufffd"))
    assert again.text == answer.text


@pytest.mark.parametrize("target", targets.names())
def test_inspect_refuses_what_is_not_an_artifact(target: str, tmp_path: Path) -> None:
    from kobako.pipeline.errors import BadArtifact

    need(target)
    for number, content in enumerate((b"", b"not a model at all", bytes(1000))):
        for suffix in targets.get(target).suffixes:
            path = tmp_path / f"{number}{suffix}"
            path.write_bytes(content)
            with pytest.raises(BadArtifact):
                targets.get(target).inspect(path)
