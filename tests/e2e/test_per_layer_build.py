"""A model nested in a random Gemma 3n as it is published, through the command line: built, proven, run, inspected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kobako import targets
from kobako.pipeline.manifest import check_files, read_manifest
from kobako.pipeline.reference.slices import parse_slice

from tests.contract.test_per_layer import multimodal, write_checkpoint
from tests.contract.test_slices import SLICE, WHOLE

pytestmark = pytest.mark.heavy
TARGETS = ("coreml", "executorch", "litert")
NAME = f"tiny-gemma3n-{parse_slice(SLICE).name}"


def call(*arguments: object, code: int = 0) -> str:
    """Run the command in this checkout; what it printed."""
    command = [sys.executable, "-m", "kobako.pipeline.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("per-layer") / "tiny-gemma3n"
    write_checkpoint(home, WHOLE, multimodal, peak=10.0)
    return home


@pytest.fixture(scope="module")
def package(checkpoint: Path) -> Path:
    for name in TARGETS:
        if missing := targets.missing_modules(targets.get(name)):
            pytest.skip(f"{missing} not installed")
    out = checkpoint.parent / "package"
    call(
        "build", checkpoint, "--slice", SLICE, "--recipe", "int8", "--context", 256, "--no-measure", "--out", out
    )  # fmt: skip
    return out


def test_all_targets_are_proven_and_one_table_lies_at_the_top(package: Path) -> None:
    manifest = read_manifest(package)
    assert manifest["proven"] is True
    assert sorted(manifest["targets"]) == list(TARGETS)
    assert [name for name, entry in manifest["targets"].items() if "table" in entry] == ["coreml"]
    assert len(list(package.rglob("*.safetensors"))) == 1 + len(list((package / "golden").glob("*.safetensors")))
    check_files(package, manifest)
    parts = json.loads((package / "report.json").read_text())["weights_bytes_by_part"]
    assert parts["per-layer table"] == 380 * 5 * (32 + 2)


def test_the_slice_is_told_of_wherever_the_package_tells_of_itself(package: Path, tmp_path: Path) -> None:
    manifest = read_manifest(package)
    assert manifest["name"] == f"{NAME}-int8"
    assert manifest["model"]["slice"] == SLICE
    assert json.loads((package / "report.json").read_text())["source"]["slice"] == SLICE
    for file in ("NOTICE", "README.md", "report.html", "sbom.cdx.json"):
        assert SLICE in (package / file).read_text(), file
    call("provenance", package, "--out", tmp_path / "statement.json")
    asked = json.loads((tmp_path / "statement.json").read_text())["predicate"]["buildDefinition"]["externalParameters"]
    assert asked["slice"] == SLICE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("e3b", "'e3b' is no part of a slice"),
        ("e2b", "names layer 20, the model has layers 0 to 6"),
    ],
)
def test_a_slice_that_does_not_fit_is_refused(checkpoint: Path, tmp_path: Path, text: str, words: str) -> None:
    out = tmp_path / "out"
    assert words in call("build", checkpoint, "--slice", text, "--target", "litert", "--out", out, code=2)
    assert not out.exists()


@pytest.mark.parametrize("target", TARGETS)
def test_it_speaks(package: Path, target: str) -> None:
    said = json.loads(call("run", package, "The train goes", "--target", target, "--max-tokens", 6, "--json"))
    assert said["generated_tokens"] == 6


def test_the_layout_is_shown(package: Path) -> None:
    shown: dict[str, Any] = json.loads(call("inspect", package / "embeddings.safetensors", "--json"))
    assert (shown["rows"], shown["layers"], shown["width"], shown["bits"]) == (380, 5, 32, 8)
    assert (shown["row_bytes"], shown["data_at_byte"]) == (170, 4096)
    assert shown["model"] == NAME


def test_another_table_is_refused_before_use(package: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    data = bytearray((copy / "embeddings.safetensors").read_bytes())
    data[5000] ^= 1
    (copy / "embeddings.safetensors").write_bytes(data)
    assert "was changed or damaged" in call("run", copy, "x", "--target", "coreml", code=7)
    call("inspect", copy / "embeddings.safetensors", code=7)
