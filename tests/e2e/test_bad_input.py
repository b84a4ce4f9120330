"""What goes wrong in the field: no network, no disk, a place that is taken. Nothing is lost, nothing half-made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import MODEL, Call

pytestmark = pytest.mark.real


def test_no_network_and_a_cold_cache(kobako: Call, tmp_path: Path) -> None:
    shown = kobako("build", MODEL, "--offline", "--out", tmp_path / "p", KOBAKO_CACHE=str(tmp_path / "cold"))
    assert shown.code == 5
    assert "Traceback" not in shown.err
    assert not (tmp_path / "p").exists()


def test_no_network_and_a_warm_cache(built: Path, kobako: Call) -> None:
    shown = kobako("build", MODEL, "--offline", "--recipe", "int8", "--out", built, "--json")
    assert shown.code == 0, shown.err
    assert shown.json["unchanged"] is True


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 60 MB: smaller than the model."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", place], capture_output=True, check=False
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_while_fetching(kobako: Call, small_disk: Path, tmp_path: Path) -> None:
    shown = kobako("build", MODEL, "--out", tmp_path / "p", KOBAKO_CACHE=str(small_disk / "cache"))
    assert shown.code == 11, shown.err
    assert "free" in shown.err.lower()
    assert not (tmp_path / "p").exists()


def test_a_full_disk_while_packaging(built: Path, kobako: Call, small_disk: Path) -> None:
    shown = kobako("build", MODEL, "--recipe", "int8", "--out", small_disk / "p")
    assert shown.code == 11, shown.err
    assert not list(small_disk.iterdir()), "something half-written stayed"


def test_an_output_that_is_something_else_is_left_alone(built: Path, kobako: Call, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    shown = kobako("build", MODEL, "--recipe", "int8", "--out", tmp_path / "mine")
    assert shown.code == 12
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_another_models_package_is_left_alone(built: Path, kobako: Call, copy: Path) -> None:
    shown = kobako("build", MODEL, "--recipe", "int4", "--out", copy)
    assert shown.code == 12
    assert "smollm2-135m-instruct-int8" in shown.err


def test_a_truncated_download_is_fetched_again(built: Path, kobako: Call, tmp_path: Path) -> None:
    """The weights in the cache lose their end: the digest says so, and they are fetched anew."""
    downloads = Path(os.environ["KOBAKO_CACHE"]) / "downloads" if "KOBAKO_CACHE" in os.environ else None
    if downloads is None or not downloads.is_dir():
        pytest.skip("the suite's cache is not known; run ./scripts/test")
    cache = tmp_path / "cache"
    shutil.copytree(downloads, cache / "downloads")
    weights = next(cache.rglob("SmolLM2*.gguf"))
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    shown = kobako("plan", MODEL, "--json", KOBAKO_CACHE=str(cache))
    assert shown.code == 0
    assert {step["state"] for step in shown.json["steps"]} == {"will run"}
