"""Gemma 3 270M, the translator of the demo: built by the command line, proven, and asked in the real engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import call_kobako

pytestmark = [pytest.mark.heavy, pytest.mark.real, pytest.mark.long]
TARGETS = ("coreml", "executorch", "litert")


def test_every_target_is_proven_and_the_licence_travels(gemma: Path) -> None:
    manifest: dict[str, Any] = json.loads((gemma / "kobako.json").read_text())
    assert manifest["proven"] is True
    assert set(manifest["targets"]) == set(TARGETS)
    assert manifest["model"]["licence"] == "Gemma"
    assert manifest["stop_ids"] == [1]
    assert "gemma-3-270m" in (gemma / "NOTICE").read_text()
    assert (gemma / "LICENSE.html").stat().st_size > 100_000
    (task,) = manifest["tasks"]
    assert set(task["fills"]) == {"fr", "de", "es"}


@pytest.mark.parametrize("target", TARGETS)
def test_it_translates_in_the_engine(gemma: Path, target: str) -> None:
    question = ("--task", "translate", "--target", target, "How much does this book cost?")
    said = {to: call_kobako("run", gemma, "--to", to, "--json", *question) for to in ("fr", "de", "es")}
    assert all(shown.code == 0 for shown in said.values()), [shown.err[-2000:] for shown in said.values()]
    assert said["fr"].json["text"] == "Combien coûte ce livre ?"
    assert "Buch" in said["de"].json["text"]
    assert "libro" in said["es"].json["text"]
    assert not any("\n" in shown.json["text"] for shown in said.values())


def test_a_translation_needs_a_language_it_knows(gemma: Path) -> None:
    for to, words in (((), "needs a language"), (("--to", "ja"), "does not know the language 'ja'")):
        shown = call_kobako("run", gemma, *to, "Good evening.")
        assert shown.code == 2, shown.err
        assert words in shown.err
        assert "--to: fr, de, es" in " ".join(shown.err.split())
