"""Every encoder × every target × {float16, int8}: exported, run in the real runtime, held against eager PyTorch.

With ``KOBAKO_SUPPORT=FILE`` the figures are added there: `scripts/support` keeps the table of supported families.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako import targets
from kobako.pipeline.contracts import Exported, ExportOptions, Quantized, no_progress
from kobako.pipeline.errors import BadArtifact, UsageError

from tests.contract.test_targets import need
from tests.encoders import CONTEXT, SHAPES, TAG, Shape, config_of, make, standard_of, vocabulary

pytestmark = pytest.mark.heavy

OPTIONS = ExportOptions(context_tokens=CONTEXT)
RECIPES = ("float16", "int8")
EXPORTED = [shape for shape in SHAPES if shape.exported]
CASES = [(shape, recipe, target) for shape in EXPORTED for recipe in RECIPES for target in targets.names()]

SMOOTHED = [shape for shape in EXPORTED if shape.head.task == "embed"]
ROWS = ("embed", "classify")  # what the table has lines for

Made = Callable[[Shape, str, str], tuple[Quantized, Exported]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """``made(shape, recipe, target)`` → a Quantized and its artifact, made once."""
    quantized: dict[tuple[str, str], Quantized] = {}
    exported: dict[tuple[str, str, str], Exported] = {}

    def get(shape: Shape, recipe: str, target: str) -> tuple[Quantized, Exported]:
        need(target)
        if (shape.name, recipe) not in quantized:
            quantized[shape.name, recipe] = make(tmp_path_factory.mktemp("encoder"), shape, recipe)
        source = quantized[shape.name, recipe]
        if (shape.name, recipe, target) not in exported:
            out = tmp_path_factory.mktemp(f"{target}-{recipe}")
            exported[shape.name, recipe, target] = targets.get(target).export(source, OPTIONS, out, no_progress)
        return source, exported[shape.name, recipe, target]

    return get


def failures(checks: list[Any]) -> list[str]:
    return [f"{one.part} {one.name}: {one.value}, demanded {one.demand}" for one in checks if not one.passed]


@pytest.mark.parametrize("case", CASES, ids=[f"{s.name}-{r}-{t}" for s, r, t in CASES])
def test_encoder(made: Made, figures: dict[str, Any], case: tuple[Shape, str, str]) -> None:
    from kobako.pipeline.encoder.proof import answers_of, behaviour_checks, check_padding, fidelity_checks
    from kobako.pipeline.validate.fidelity import check_weights

    shape, recipe, target = case
    quantized, exported = made(shape, recipe, target)
    standard, found = standard_of(quantized, exported), dict[str, Any]()
    checks = [check_weights(targets.get(target).stored_weights(exported), standard.facts["weight_digests"])]
    with closing(targets.get(target).encoder(exported)) as runtime:
        answers = answers_of(runtime, standard, exported, lambda _: None)
        checks += fidelity_checks(answers, standard, exported, found)
        checks.append(check_padding(runtime, answers, standard, exported))
    checks += behaviour_checks(targets.get(target), exported, standard, answers)
    assert not failures(checks)
    assert exported.kind == "encoder"
    quirks = "; ".join(one.quirk for one in SHAPES if one.model_type == shape.model_type and one.head.task in ROWS)
    entry = figures.setdefault(
        shape.model_type, {"quirk": quirks, "generic": False, "kind": "encoder", "kl_nats": {}, "cosine_distance": {}}
    )
    if shape.head.task not in ROWS:
        return
    measured = "cosine_distance" if shape.head.task == "embed" else "kl_nats"
    entry[measured][f"{target} {recipe}"] = float(f"{max(found['fidelity']['texts']['distance'], 0.0):.1e}")


@pytest.mark.parametrize("recipe", ["int4", "int4-small", "int4-nearest"])
@pytest.mark.parametrize("target", targets.names())
def test_four_bits(made: Made, target: str, recipe: str) -> None:
    from kobako.pipeline.encoder.proof import answers_of, fidelity_checks
    from kobako.pipeline.validate.fidelity import check_weights

    quantized, exported = made(SHAPES[0], recipe, target)
    standard = standard_of(quantized, exported)
    checks = [check_weights(targets.get(target).stored_weights(exported), standard.facts["weight_digests"])]
    with closing(targets.get(target).encoder(exported)) as runtime:
        checks += fidelity_checks(answers_of(runtime, standard, exported, lambda _: None), standard, exported, {})
    assert not failures(checks)


@pytest.mark.parametrize("target", targets.names())
def test_another_models_artifact_fails_the_same_proof(made: Made, target: str) -> None:
    from kobako.pipeline.encoder.proof import answers_of, fidelity_checks

    quantized, exported = made(SHAPES[0], "float16", target)
    other, _ = made(SHAPES[2], "float16", target)
    standard = standard_of(other, exported)
    with closing(targets.get(target).encoder(exported)) as runtime:
        checks = fidelity_checks(answers_of(runtime, standard, exported, lambda _: None), standard, exported, {})
    assert len(failures(checks)) == 2
    assert quantized.model_type != other.model_type


@pytest.mark.parametrize("target", targets.names())
def test_a_mask_that_is_ignored_fails(made: Made, target: str) -> None:
    """Padding that the graph looked at would change the answer by more than is allowed."""
    from kobako.pipeline.encoder.proof import answers_of, check_padding

    class Ignoring:
        """The artifact, but every token is shown."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.name = inner, "ignoring"

        def encode(self, ids: Any, mask: Any) -> Any:
            return self.inner.encode(ids, [1] * len(mask))

        def close(self) -> None: ...

    quantized, exported = made(SHAPES[0], "float16", target)
    standard = standard_of(quantized, exported)
    with closing(targets.get(target).encoder(exported)) as runtime:
        answers = answers_of(runtime, standard, exported, lambda _: None)
        assert check_padding(runtime, answers, standard, exported).passed
        assert not check_padding(Ignoring(runtime), answers, standard, exported).passed


@pytest.mark.parametrize("target", targets.names())
def test_files_are_complete_and_ship_the_tokenizer(made: Made, target: str) -> None:
    quantized, exported = made(SHAPES[0], "int8", target)
    on_disk = {str(p.relative_to(exported.directory)) for p in exported.directory.rglob("*") if p.is_file()}
    assert set(exported.files) == on_disk
    given = (quantized.tokenizer_dir / "tokenizer.json").read_bytes()
    assert (exported.directory / "tokenizer.json").read_bytes() == given
    model = next(name for name in exported.files if name.startswith("model."))
    assert targets.get(target).inspect(exported.directory / model.split("/")[0])


@pytest.mark.parametrize("target", targets.names())
def test_too_many_tokens_and_none_are_refused(made: Made, target: str) -> None:
    _, exported = made(SHAPES[0], "float16", target)
    with closing(targets.get(target).encoder(exported)) as runtime:
        for count in (0, CONTEXT + 1):
            with pytest.raises(UsageError, match=f"{count} tokens do not fit"):
                runtime.encode([5] * count, [1] * count)
        assert np.isfinite(runtime.encode([5] * CONTEXT, [1] * CONTEXT)).all()


@pytest.mark.parametrize("target", targets.names())
def test_damaged_artifacts_are_refused(made: Made, target: str, tmp_path: Path) -> None:
    _, exported = made(SHAPES[0], "float16", target)
    copy = Path(shutil.copytree(exported.directory, tmp_path / "copy"))
    largest = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(BadArtifact):
        targets.get(target).encoder(replace(exported, directory=copy)).encode([2, 5, 3], [1, 1, 1])


@pytest.mark.parametrize("form", ["whole", "bare"])
@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_checkpoints_are_read_as_transformers_reads_them(shape: Shape, form: str, tmp_path: Path) -> None:
    """What `save_pretrained` writes, with and without a head around the bare model, gives the same answers."""
    import torch
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.heads import head_of
    from kobako.pipeline.reference.encoder import Encoder
    from kobako.pipeline.reference.load import load
    from kobako.pipeline.reference.model import reference_model
    from transformers import (
        AutoModelForMaskedLM,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    if shape.head.chooses and form == "bare":
        pytest.skip("a bare model has neither labels nor words")
    torch.manual_seed(0)
    kinds = {
        "classify": AutoModelForSequenceClassification, "answer": AutoModelForQuestionAnswering,
        "tag": AutoModelForTokenClassification,
    }  # fmt: skip
    kind = kinds.get(shape.head.task, AutoModelForMaskedLM)
    model = kind.from_config(config_of(shape), dtype=torch.float32).eval()
    (model.base_model if form == "bare" else model).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    source = fetch(parse(str(tmp_path / "model")), tmp_path / "downloads", no_progress)
    (tmp_path / "reference").mkdir()
    reference = load(source, tmp_path / "reference", task=shape.head.task)
    head = head_of(reference.directory)
    ids, mask = torch.arange(2, 90)[None], torch.tensor([[1] * 80 + [0] * 8])
    with torch.no_grad():
        ours = Encoder(reference_model(reference), head)(ids, mask)
        if shape.head.task in ("classify", "tag"):
            theirs = model(input_ids=ids, attention_mask=mask).logits.flatten(1)
            assert head.labels == shape.head.labels
        elif shape.head.task == "answer":
            separated = torch.where(ids == 3, 9, ids)
            separated[0, [20, 79]] = 3  # [SEP] behind the question, and behind the passage
            ours = Encoder(reference_model(reference), head)(separated, mask)
            types = ((torch.arange(88) > 20) * (head.separator_id >= 0)).to(torch.int64)[None]
            found = model(input_ids=separated, attention_mask=mask, token_type_ids=types)
            theirs = torch.cat([found.start_logits, found.end_logits], dim=-1)
            assert head == shape.head
        elif shape.head.task == "fill-mask":
            ids[0, 7] = head.mask_id
            ids[0, 2] = 9  # the mask's own place in the row
            ours = Encoder(reference_model(reference), head)(ids, mask)
            theirs = model(input_ids=ids, attention_mask=mask).logits[:, 7]
            assert head == shape.head
        else:
            hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            theirs = hidden[:, :80].mean(1)
            assert (head.pooling, head.normalize, head.stated) == ("mean", False, False)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("shape", SMOOTHED, ids=[shape.name for shape in SMOOTHED])
def test_smoothing_leaves_every_family_what_it_was(shape: Shape) -> None:
    """What a family says about which module feeds which is true of transformers' code."""
    import torch
    from kobako.pipeline import families
    from kobako.pipeline.reference.eager import empty_encoder, set_parameter
    from kobako.pipeline.reference.encoder import Encoder
    from kobako.pipeline.smooth import smooth

    from tests.families import random_values

    family, model = families.get(shape.model_type), empty_encoder(config_of(shape), shape.head)
    values = {name: random_values(name, p.shape, family) for name, p in model.named_parameters()}
    inputs = {
        name: np.random.default_rng(len(name)).uniform(0.01, 100.0, module.in_features).astype(np.float32)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    smoothed = smooth(values, inputs, family, config_of(shape).num_hidden_layers, 0.5)
    answers = []
    for tensors in (values, smoothed):
        for name in values:
            set_parameter(model, name, torch.from_numpy(np.array(tensors[name])))
        with torch.no_grad():
            answers.append(Encoder(model, shape.head)(torch.arange(3, 63)[None], torch.ones(1, 60)))
    assert torch.allclose(answers[0], answers[1], rtol=1e-3, atol=1e-3)
    assert any(not np.array_equal(values[name], smoothed[name]) for name in values)


def write_checkpoint(directory: Path, kind: Any, shape: Shape) -> None:
    """A random checkpoint whose tokenizer is a lone vocab.txt."""
    import torch

    torch.manual_seed(0)
    kind.from_config(config_of(shape), dtype=torch.float32).save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")


def kobako(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line with a cache of its own."""
    command = [sys.executable, "-m", "kobako.pipeline.cli.main", *arguments]
    environment = os.environ | {"KOBAKO_CACHE": str(cache)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_masked_word_from_end_to_end(tmp_path: Path) -> None:
    """A masked language model is built for masked words, and for vectors when that is asked for."""
    from transformers import AutoModelForMaskedLM

    need("litert")
    write_checkpoint(tmp_path / "tiny", AutoModelForMaskedLM, SHAPES[-1])
    package, options = str(tmp_path / "words"), ("-r", "int8", "-t", "litert", "--no-measure", "--quiet")
    built = kobako(tmp_path / "cache", "build", str(tmp_path / "tiny"), *options, "-o", package)
    assert built.returncode == 0, built.stderr[-3000:]
    shown = kobako(tmp_path / "cache", "run", package, "The [MASK] and the water.", "--quiet")
    assert len(shown.stdout.splitlines()) == 5, shown.stderr
    refused = kobako(tmp_path / "cache", "run", package, "The moon and the water.")
    assert refused.returncode == 2
    assert "Write [MASK] for one word" in refused.stderr
    vectors = str(tmp_path / "vectors")
    built = kobako(tmp_path / "cache", "build", str(tmp_path / "tiny"), *options, "--task", "embed", "-o", vectors)
    assert built.returncode == 0, built.stderr[-3000:]
    assert len(json.loads(kobako(tmp_path / "cache", "run", vectors, "The moon.", "--quiet").stdout)) == 64


def test_a_question_and_a_passage_from_end_to_end(tmp_path: Path) -> None:
    """The answer is words of the passage; one text alone is refused."""
    from transformers import AutoModelForQuestionAnswering

    need("litert")
    shape = next(one for one in SHAPES if one.head.task == "answer")
    write_checkpoint(tmp_path / "tiny", AutoModelForQuestionAnswering, shape)
    package, passage = str(tmp_path / "answers"), "The moon is above the water."
    options = ("-r", "int8", "-t", "litert", "--no-measure", "--quiet")
    built = kobako(tmp_path / "cache", "build", str(tmp_path / "tiny"), *options, "-o", package)
    assert built.returncode == 0, built.stderr[-3000:]
    said = json.loads(kobako(tmp_path / "cache", "run", package, "Where is it?", passage, "--json").stdout)
    assert next(iter(said["texts"][0]["labels"])) in passage
    refused = kobako(tmp_path / "cache", "run", package, passage)
    assert refused.returncode == 2
    assert "Give two texts, the question first" in refused.stderr
    card = (tmp_path / "answers" / "README.md").read_text()
    assert "which words of the passage are the answer" in card


def test_tags_from_end_to_end(tmp_path: Path) -> None:
    """Words of the text with their labels; the model card says what the labels are."""
    from transformers import AutoModelForTokenClassification

    need("litert")
    write_checkpoint(tmp_path / "tiny", AutoModelForTokenClassification, next(one for one in SHAPES if one.head == TAG))
    package, options = str(tmp_path / "tags"), ("-r", "int8", "-t", "litert", "--no-measure", "--quiet")
    built = kobako(tmp_path / "cache", "build", str(tmp_path / "tiny"), *options, "-o", package)
    assert built.returncode == 0, built.stderr[-3000:]
    text = "The moon and the water."
    said = json.loads(kobako(tmp_path / "cache", "run", package, text, "--json").stdout)
    tags = said["texts"][0]["tags"]
    assert " ".join(one["text"] for one in tags).replace(" .", ".") == text  # none of the labels is O
    assert {one["label"] for one in tags} <= set(TAG.labels)
    shown = kobako(tmp_path / "cache", "run", package, text, "--quiet").stdout.splitlines()
    assert [line.split()[1] for line in shown] == [one["label"] for one in tags]
    assert "Every word of a text gets a label: good, bad and neither." in (tmp_path / "tags" / "README.md").read_text()


def test_the_build_of_an_encoder_from_end_to_end(tmp_path: Path) -> None:
    """A classifier's checkpoint with nothing but a vocab.txt: built, proven, proven again, run, timed and inspected."""
    from transformers import AutoModelForSequenceClassification

    need("litert")
    shape, cache, package = SHAPES[1], tmp_path / "cache", str(tmp_path / "package")
    write_checkpoint(tmp_path / "tiny", AutoModelForSequenceClassification, shape)
    built = kobako(
        cache, "build", str(tmp_path / "tiny"), "-r", "int8", "-t", "litert", "-o", package, "--json", "--no-measure"
    )
    assert built.returncode == 0, built.stderr[-3000:]
    manifest = json.loads((tmp_path / "package" / "kobako.json").read_text())
    assert manifest["kind"] == "encoder"
    assert manifest["context_tokens"] == 256  # the model's own, since none was asked for
    assert manifest["head"]["labels"] == list(shape.head.labels)
    assert [task["name"] for task in manifest["tasks"]] == ["classify"]
    card = (tmp_path / "package" / "README.md").read_text()
    assert "Every text gets labels: good, bad and neither." in card
    assert kobako(cache, "validate", package).returncode == 0
    said = json.loads(kobako(cache, "run", package, "--task", "classify", "The moon.", "--json").stdout)
    shares = said["texts"][0]["labels"]
    assert set(shares) == set(shape.head.labels)
    assert sum(shares.values()) == pytest.approx(1.0)
    timed = json.loads(kobako(cache, "bench", package, "--json").stdout)["litert"]
    assert timed["prefill_tokens_per_s"] > 0
    assert timed["decode_tokens_per_s"] is None
    refused = kobako(cache, "run", package, "--task", "embed", "The moon.")
    assert refused.returncode == 3
    assert "It has: classify" in refused.stderr
    mixed = kobako(cache, "build", str(tmp_path / "tiny"), "--size-budget", "1MB", "-o", str(tmp_path / "mixed"))
    assert mixed.returncode == 9
    assert "not for encoders" in mixed.stderr
