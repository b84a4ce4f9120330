"""A random Gemma 3n as it is published, through the command line: built, proven, run, inspected on all targets."""

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

from tests.contract.test_per_layer import PER_LAYER, multimodal, write_checkpoint

pytestmark = pytest.mark.heavy
TARGETS = ("coreml", "executorch", "litert")


def call(*arguments: object, code: int = 0) -> str:
    """Run the command in this checkout; what it printed."""
    command = [sys.executable, "-m", "kobako.pipeline.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in TARGETS:
        if missing := targets.missing_modules(targets.get(name)):
            pytest.skip(f"{missing} not installed")
    home = tmp_path_factory.mktemp("per-layer")
    shape = next(one for one in PER_LAYER if one.model_type == "gemma3n_text")
    write_checkpoint(home / "tiny-gemma3n", shape, multimodal, peak=10.0)
    call(
        "build", home / "tiny-gemma3n", "--recipe", "int8", "--context", 256, "--no-measure", "--out", home / "package"
    )
    return home / "package"


def test_all_targets_are_proven_and_one_table_lies_at_the_top(package: Path) -> None:
    manifest = read_manifest(package)
    assert manifest["proven"] is True
    assert sorted(manifest["targets"]) == list(TARGETS)
    assert [name for name, entry in manifest["targets"].items() if "table" in entry] == ["coreml"]
    assert len(list(package.rglob("*.safetensors"))) == 1 + len(list((package / "golden").glob("*.safetensors")))
    check_files(package, manifest)
    parts = json.loads((package / "report.json").read_text())["weights_bytes_by_part"]
    assert parts["per-layer table"] == 380 * 5 * (32 + 2)


@pytest.mark.parametrize("target", TARGETS)
def test_it_speaks(package: Path, target: str) -> None:
    said = json.loads(call("run", package, "The train goes", "--target", target, "--max-tokens", 6, "--json"))
    assert said["generated_tokens"] == 6


def test_the_layout_is_shown(package: Path) -> None:
    shown: dict[str, Any] = json.loads(call("inspect", package / "embeddings.safetensors", "--json"))
    assert (shown["rows"], shown["layers"], shown["width"], shown["bits"]) == (380, 5, 32, 8)
    assert (shown["row_bytes"], shown["data_at_byte"]) == (170, 4096)
    assert shown["model"] == "tiny-gemma3n"


def test_another_table_is_refused_before_use(package: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    data = bytearray((copy / "embeddings.safetensors").read_bytes())
    data[5000] ^= 1
    (copy / "embeddings.safetensors").write_bytes(data)
    assert "was changed or damaged" in call("run", copy, "x", "--target", "coreml", code=7)
    call("inspect", copy / "embeddings.safetensors", code=7)
