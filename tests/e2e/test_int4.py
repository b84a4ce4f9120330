"""The default recipe on the real model: 4 bits in asymmetric blocks, for all three targets, smaller and still right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import MODEL, Call

pytestmark = [pytest.mark.heavy, pytest.mark.real]


def test_the_default_recipe_is_small_and_right(kobako: Call, tmp_path_factory: pytest.TempPathFactory) -> None:
    out: Path = tmp_path_factory.mktemp("int4") / "package"
    shown = kobako("build", MODEL, "--no-measure", "--out", out, "--json")
    assert shown.code == 0, shown.err
    report = shown.json["report"]
    assert report["recipe"]["name"] == "int4"
    for target in ("executorch", "coreml", "litert"):
        checks = report["targets"][target]["report"]["checks"]
        assert all(check["passed"] for check in checks), (target, checks)
        weights = next(check for check in checks if check["part"] == "weights")
        assert weights["value"].endswith("tensors identical")
        quality = report["targets"][target]["report"]["figures"]["quality"]
        assert quality["kl_nats"] < 0.04
        assert quality["top1"] > 0.87
    # the peers' int4 files of this model have 105 MB and lose 0.4 nats (docs/performance.md)
    assert (out / "executorch" / "model.pte").stat().st_size < 96e6
    assert (out / "litert" / "model.litertlm").stat().st_size < 99e6
