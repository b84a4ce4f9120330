"""The cache: complete or absent, shared, and continued from after a kill."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kobako.pipeline.cache import Cache, Made, code_version, stage_key
from kobako.pipeline.errors import NotEnoughDisk, OutputError
from safetensors import SafetensorError


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    return cache


def write_result(out: Path) -> Made:
    (out / "data").write_text("result")
    return Made({"file": str(out / "data"), "n": 3}, peak_rss_bytes=7)


def test_second_call_makes_nothing(cache: Cache) -> None:
    calls = []

    def make(out: Path) -> Made:
        calls.append(out)
        return write_result(out)

    first = cache.get("stage", {"a": 1}, make)
    second = cache.get("stage", {"a": 1}, make)
    assert len(calls) == 1
    assert (first.hit, second.hit) == (False, True)
    assert first.value == second.value
    assert Path(second.value["file"]).read_text() == "result"
    assert second.peak_rss_bytes == 7


def test_other_inputs_are_another_entry(cache: Cache) -> None:
    one = cache.get("stage", {"a": 1}, write_result)
    other = cache.get("stage", {"a": 2}, write_result)
    assert one.key != other.key
    assert stage_key("stage", {"a": 1}) == one.key
    assert stage_key("other", {"a": 1}) != one.key


def test_a_failing_stage_leaves_nothing(cache: Cache) -> None:
    def fail(out: Path) -> Made:
        (out / "half").write_text("x")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.get("stage", {}, fail)
    assert cache.find("stage", stage_key("stage", {})) is None
    assert not list((cache.root / "tmp").iterdir())


@pytest.mark.parametrize("damage", ["truncate", "remove", "entry"])
def test_a_damaged_entry_is_made_again(cache: Cache, damage: str) -> None:
    entry = cache.get("stage", {}, write_result)
    data = entry.files / "data"
    if damage == "truncate":
        data.write_text("res")
    elif damage == "remove":
        data.unlink()
    else:
        (entry.files.parent / "entry.json").write_text("{")
    again = cache.get("stage", {}, write_result)
    assert not again.hit
    assert data.read_text() == "result"


def test_a_moved_cache_still_serves(cache: Cache, tmp_path: Path) -> None:
    cache.get("stage", {}, write_result)
    cache.root.rename(tmp_path / "moved")
    entry = Cache(tmp_path / "moved").get("stage", {}, write_result)
    assert entry.hit
    assert entry.value["file"] == str(tmp_path / "moved" / "stage" / entry.key / "files" / "data")


def test_disk_full_is_an_error_that_says_so(cache: Cache) -> None:
    def full(out: Path) -> Made:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(NotEnoughDisk, match="full"):
        cache.get("stage", {}, full)


@pytest.mark.parametrize(("number", "expected"), [(28, NotEnoughDisk), (5, SafetensorError)])
def test_disk_full_is_the_same_error_in_a_librarys_own_words(
    cache: Cache, number: int, expected: type[Exception]
) -> None:
    """As safetensors said it when the disk was full; its class is no OSError."""

    def full(_out: Path) -> Made:
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")

    with pytest.raises(expected):
        cache.get("stage", {}, full)


def test_unwritable_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Cache(tmp_path / "file" / "cache").prepare()


SLOW = """
import sys, time
from pathlib import Path
from kobako.pipeline.cache import Cache, Made
def make(out):
    with Path(sys.argv[2]).open("a") as file:
        file.write("made\\n")
    time.sleep(0.3)
    (out / "data").write_text("result")
    return Made({})
Cache(Path(sys.argv[1])).get("stage", {}, make)
"""


def test_three_processes_make_it_once(cache: Cache, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    processes = [subprocess.Popen([sys.executable, "-c", SLOW, str(cache.root), str(marks)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert marks.read_text() == "made\n"


KILLED = """
import sys, time
from pathlib import Path
from kobako.pipeline.cache import Cache, Made
def make(out):
    (out / "half").write_text("x" * 1000)
    print("working", flush=True)
    time.sleep(60)
    return Made({})
cache = Cache(Path(sys.argv[1])); cache.prepare(); cache.get("stage", {}, make)
"""


def test_kill_leaves_a_cache_that_the_next_run_continues(cache: Cache) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(cache.root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((cache.root / "tmp").iterdir()), "the kill came too late to prove anything"
    cache.prepare()
    assert not list((cache.root / "tmp").iterdir())
    assert not cache.get("stage", {}, write_result).hit


def test_code_version_follows_the_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    before = code_version(tmp_path)
    (tmp_path / "notes.md").write_text("not code")
    assert code_version(tmp_path) == before
    (tmp_path / "a.py").write_text("x = 2")
    assert code_version(tmp_path) != before
