"""A cache that machines share: what one made the others get, whole and undamaged or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kobako.pipeline.cache import Cache, Made, stage_key
from kobako.pipeline.errors import IntegrityError, NetworkError, UsageError
from kobako.pipeline.shared_cache import SharedCache

INPUTS = {"model": "x"}


def make(out: Path) -> Made:
    (out / "deep").mkdir()
    (out / "deep" / "weights.bin").write_bytes(b"weights")
    return Made({"path": str(out / "deep" / "weights.bin")}, 7)


def never(out: Path) -> Made:
    raise AssertionError("it was made again")


def machine(tmp_path: Path, name: str, url: str) -> Cache:
    cache = Cache(tmp_path / name, SharedCache(url))
    cache.prepare()
    return cache


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path / 'shared'}" if request.param == "file" else f"memory://{tmp_path.name}/shared"


def test_what_one_machine_made_another_gets(tmp_path: Path, url: str) -> None:
    made = machine(tmp_path, "one", url).get("load", INPUTS, make)
    got = machine(tmp_path, "two", url).get("load", INPUTS, never)
    assert got.hit
    assert got.key == made.key
    assert Path(got.value["path"]).read_bytes() == b"weights"
    assert Path(got.value["path"]).is_relative_to(tmp_path / "two")
    assert not list((tmp_path / "two" / "tmp").iterdir())


def test_what_another_machine_made_is_known(tmp_path: Path, url: str) -> None:
    key, two = stage_key("load", INPUTS), machine(tmp_path, "two", url)
    assert two.known("load", key) is None
    machine(tmp_path, "one", url).get("load", INPUTS, make)
    found = two.known("load", key)
    assert found is not None
    assert Path(found.value["path"]).read_bytes() == b"weights"
    assert Cache(tmp_path / "two").known("load", key) is not None
    assert Cache(tmp_path / "three").known("load", key) is None


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'shared'}"
    key = machine(tmp_path, "one", url).get("load", INPUTS, make).key
    (tmp_path / "shared" / "load" / key / "files" / "deep" / "weights.bin").write_bytes(b"weighty")
    two = machine(tmp_path, "two", url)
    with pytest.raises(IntegrityError, match="damaged"):
        two.get("load", INPUTS, never)
    assert two.find("load", key) is None


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil"])
def test_a_name_that_leaves_the_cache_is_refused(tmp_path: Path, name: str) -> None:
    url = f"file://{tmp_path / 'shared'}"
    key = machine(tmp_path, "one", url).get("load", INPUTS, make).key
    record = tmp_path / "shared" / "load" / key / "entry.json"
    value = json.loads(record.read_text())
    record.write_text(json.dumps(value | {"files": {name: 7}, "sha256": {name: "0" * 64}}))
    with pytest.raises(IntegrityError):
        machine(tmp_path, "two", url).get("load", INPUTS, never)


def test_half_an_entry_is_none(tmp_path: Path) -> None:
    """What a machine that died while copying left: files, but no record."""
    url = f"file://{tmp_path / 'shared'}"
    key = machine(tmp_path, "one", url).get("load", INPUTS, make).key
    (tmp_path / "shared" / "load" / key / "entry.json").unlink()
    assert not machine(tmp_path, "two", url).get("load", INPUTS, make).hit


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        SharedCache("nosuchthing://x/y")
    (tmp_path / "file").write_text("")
    with pytest.raises(NetworkError, match="cannot be used"):
        machine(tmp_path, "one", f"file://{tmp_path / 'file'}/shared").get("load", INPUTS, make)
