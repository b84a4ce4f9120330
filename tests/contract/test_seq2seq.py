"""Every encoder-decoder × target × {float16, int8}: exported, run in the real runtime, held against eager PyTorch.

With ``KOBAKO_SUPPORT=FILE`` the figures are added there: `scripts/support` keeps the table of supported families.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako import targets
from kobako.pipeline.contracts import Exported, ExportOptions, Quantized, no_progress
from kobako.pipeline.errors import BadArtifact, UsageError
from kobako.pipeline.metrics import kl_nats
from kobako.pipeline.seq2seq.runtime import Seq2SeqRuntime
from kobako.pipeline.validate.fidelity import check_weights
from kobako.pipeline.weights import weight_digests

from tests.contract.test_encoders import kobako
from tests.contract.test_targets import need
from tests.seq2seq import CONTEXT, SHAPES, Shape, make, write_checkpoint, write_tokenizer

pytestmark = pytest.mark.heavy

OPTIONS = ExportOptions(context_tokens=CONTEXT)
CASES = [
    (shape, recipe, target)
    for shape in SHAPES
    for recipe in ("float16", "int8")[shape.name != shape.model_type :]  # an architecture's second shape: int8 only
    for target in targets.names()
]
SOURCE = [(3 + i) * 7 % 384 for i in range(20)]
ANSWER = [(5 + i) * 11 % 384 for i in range(30)]

Made = Callable[[Shape, str, str], tuple[Quantized, Exported]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """``made(shape, recipe, target)`` → a Quantized and its artifact, made once."""
    quantized: dict[tuple[str, str], Quantized] = {}
    exported: dict[tuple[str, str, str], Exported] = {}

    def get(shape: Shape, recipe: str, target: str) -> tuple[Quantized, Exported]:
        need(target)
        if (shape.name, recipe) not in quantized:
            quantized[shape.name, recipe] = make(tmp_path_factory.mktemp("s2s") / "q", shape, recipe, write_tokenizer)
        source = quantized[shape.name, recipe]
        if (shape.name, recipe, target) not in exported:
            out = tmp_path_factory.mktemp(f"{target}-{recipe}")
            exported[shape.name, recipe, target] = targets.get(target).export(source, OPTIONS, out, no_progress)
        return source, exported[shape.name, recipe, target]

    return get


def note(figures: dict[str, Any], shape: Shape, case: str, kl_nats: float) -> None:
    """Keep the figure of an architecture's first shape."""
    if shape.name == shape.model_type:
        entry = figures.setdefault(
            shape.model_type, {"kind": "seq2seq", "quirk": shape.quirk, "generic": False, "kl_nats": {}}
        )
        entry["kl_nats"][case] = float(f"{kl_nats:.1e}")


def expected(quantized: Quantized, activations: str) -> np.ndarray:
    """Logits ``[T, V]`` of transformers' own forward pass, activations rounded as the artifact rounds them."""
    import torch
    from kobako.pipeline.reference.eager import dynamic_int8_activations, quantized_model

    model = quantized_model(quantized)
    rounding = dynamic_int8_activations(model) if activations == "int8-dynamic" else nullcontext()
    with torch.inference_mode(), rounding:
        found = model(input_ids=torch.tensor([SOURCE]), decoder_input_ids=torch.tensor([ANSWER]), use_cache=False)
    return np.asarray(found.logits[0].numpy())


def said(exported: Exported, ids: list[int], mask: list[int]) -> np.ndarray:
    """Logits ``[T, V]`` of the artifact, the answer given token by token."""
    with closing(Seq2SeqRuntime(targets.get(exported.target).seq2seq(exported), exported)) as runtime:
        runtime.read(ids, mask)
        return np.stack([runtime.answer([token]) for token in ANSWER])


@pytest.mark.parametrize("case", CASES, ids=[f"{s.name}-{r}-{t}" for s, r, t in CASES])
def test_seq2seq(made: Made, figures: dict[str, Any], case: tuple[Shape, str, str]) -> None:
    shape, recipe, target = case
    quantized, exported = made(shape, recipe, target)
    weights = check_weights(targets.get(target).stored_weights(exported), weight_digests(quantized))
    assert weights.passed, weights
    wanted, plain = expected(quantized, exported.activations), said(exported, SOURCE, [1] * len(SOURCE))
    limit = 0.02 if exported.activations == "int8-dynamic" else 1e-3
    assert kl_nats(wanted, plain).mean() < limit
    assert kl_nats(wanted[::-1].copy(), plain).mean() > 2 * limit  # another answer fails
    more = CONTEXT - len(SOURCE)
    padded = said(exported, [*SOURCE, *(SOURCE * CONTEXT)[:more]], [1] * len(SOURCE) + [0] * more)
    note(figures, shape, f"{target} {recipe}", max(kl_nats(wanted, one).mean() for one in (plain, padded)))
    assert kl_nats(plain, padded).mean() < limit
    shown = said(exported, [*SOURCE, *(SOURCE * CONTEXT)[:more]], [1] * CONTEXT)
    assert kl_nats(plain, shown).mean() > kl_nats(plain, padded).mean()  # a mask that was ignored would be seen


@pytest.mark.parametrize("target", targets.names())
def test_limits_and_damage(made: Made, target: str, tmp_path: Path) -> None:
    import shutil

    _, exported = made(SHAPES[0], "float16", target)
    assert exported.kind == "seq2seq"
    functions = exported.details.get("functions") or exported.details.get("signatures")
    assert functions is None or {"encode_32", f"encode_{CONTEXT}"} <= set(functions)  # ExecuTorch's takes any length
    on_disk = {str(p.relative_to(exported.directory)) for p in exported.directory.rglob("*") if p.is_file()}
    assert set(exported.files) == on_disk
    with closing(Seq2SeqRuntime(targets.get(target).seq2seq(exported), exported)) as runtime:
        for count in (0, CONTEXT + 1):
            with pytest.raises(UsageError, match=f"{count} tokens do not fit"):
                runtime.read([5] * count, [1] * count)
        runtime.read([5], [1])
        with pytest.raises(UsageError, match="do not fit an answer"):
            runtime.answer([5] * (CONTEXT + 1))
    copy = Path(shutil.copytree(exported.directory, tmp_path / "copy"))
    largest = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(BadArtifact):
        targets.get(target).seq2seq(replace(exported, directory=copy)).read([5, 6], [1, 1])


def test_from_checkpoint_to_answer(tmp_path: Path) -> None:
    """One build on the command line: proof, package, the proof again, an answer in the runtime, and refusals."""
    need("litert")
    home = write_checkpoint(tmp_path / "tiny", next(one for one in SHAPES if one.name == "m2m_100"))
    cache, package = tmp_path / "cache", str(tmp_path / "package")
    refused = kobako(cache, "build", str(home), "-t", "litert", "-o", package)
    assert refused.returncode == 9
    assert "Use --recipe int8" in refused.stderr
    assert kobako(cache, "plan", str(home), "-t", "litert").returncode == 9
    options = ("-r", "float16", "-t", "litert", "--context", "128", "--no-measure", "--quiet")
    built = kobako(cache, "build", str(home), *options, "-o", package)
    assert built.returncode == 0, built.stderr[-3000:]
    manifest = json.loads((tmp_path / "package" / "kobako.json").read_text())
    assert (manifest["kind"], [task["name"] for task in manifest["tasks"]]) == ("seq2seq", ["translate"])
    assert kobako(cache, "validate", package).returncode == 0
    said = [
        json.loads(kobako(cache, "run", package, *languages, "The moon.", "--json", "--max-tokens", "8").stdout)
        for languages in (("--to", "fr"), ("--to", "de"), ("--to", "fr", "--from", "ja"))
    ]
    assert [one["prompt_tokens"] for one in said] == [12, 12, 12]  # two languages, nine letters, the end
    assert len({tuple(one["token_ids"]) for one in said}) > 1
    assert kobako(cache, "run", package, "The moon.").returncode == 2  # no language
