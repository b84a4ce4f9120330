"""A few hundred damaged inputs of each kind; ``scripts/fuzz`` runs a hundred thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import Subject, subjects
from hypothesis import HealthCheck, given, seed, settings
from kobako.pipeline import jail

CASES = 150


@pytest.fixture(scope="module")
def all_subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    return {subject.name: subject for subject in subjects(Path(tmp_path_factory.mktemp("hostile")))}


@pytest.mark.parametrize(
    "name",
    [
        "names of files", "manifests", "package sets", "signatures", "certificates", "statements", "trust files",
        "safetensors", "GGUF files", "golden files", "tokenizers", "chat templates", "archives",
        "embedding tables", "checkpoints", "packed weights", "adapters", "lists of models",
    ],
)  # fmt: skip
def test_hostile_input_is_refused_or_harmless(
    name: str, all_subjects: dict[str, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jail, "TIME_S", 0.5)
    subject, accepted = all_subjects[name], list[bool]()

    @seed(2026)
    @settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(subject.cases)
    def run(case: object) -> None:
        accepted.append(subject.check(case))

    run()
    assert len(accepted) >= CASES
    assert not all(accepted)  # some of so many damaged inputs must be refused
