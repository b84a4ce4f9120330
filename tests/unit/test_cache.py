"""The cache: complete or absent, shared, and continued from after a kill."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from kobako.pipeline.cache import Cache, Made, code_version, stage_key
from kobako.pipeline.cli.main import cli
from kobako.pipeline.errors import NetworkError, NotEnoughDisk, OutputError, TargetCrashed
from kobako.pipeline.fetch.digests import Digests
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


def test_a_use_is_remembered_and_pruning_goes_by_it(cache: Cache) -> None:
    used, idle = (cache.get("stage", {"a": number}, write_result) for number in (1, 2))
    long_ago = time.time() - 40 * 86400
    for entry in (used, idle):
        os.utime(entry.files.parent / "entry.json", (long_ago, long_ago))
    assert cache.find("stage", idle.key) is not None  # to look, as `kobako plan` does, is no use
    assert cache.get("stage", {"a": 1}, write_result).hit
    said = CliRunner().invoke(cli, ["cache", "ls", "--json", "--cache-dir", str(cache.root)])
    ages = {entry["key"]: entry["age_days"] for entry in json.loads(said.stdout)}
    assert ages[used.key] < 1
    assert ages[idle.key] > 39
    CliRunner().invoke(cli, ["cache", "prune", "--older-than", "30", "--cache-dir", str(cache.root)])
    assert [key for _, key, _, _ in cache.entries()] == [used.key]


def as_somebody_else(act: Callable[[], object]) -> str:
    """What `act` comes to in a process that is not root, to which every door is open: its error, or its value."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            said = repr(act())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as told:
        return told.read()


@pytest.fixture
def read_only() -> Iterator[Cache]:
    """A cache with an entry and a download, which may be read by everybody and written by nobody."""
    import filelock  # noqa: F401  # the child could not import it where the tests' environment is root's own

    home = Path(tempfile.mkdtemp())
    home.chmod(0o755)
    cache = Cache(home / "cache")
    cache.prepare()
    cache.get("stage", {}, write_result)
    (cache.root / "downloads").mkdir()
    for path in [*cache.root.rglob("*"), cache.root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield cache
    for path in [cache.root, *cache.root.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(home)


def test_a_read_only_cache_serves_what_it_has(read_only: Cache) -> None:
    def use() -> bool:
        read_only.prepare()
        return read_only.get("stage", {}, write_result).hit

    assert as_somebody_else(use) == "True"


def test_a_read_only_cache_says_so_with_advice(read_only: Cache) -> None:
    key = stage_key("stage", {})
    acts: list[Callable[[], object]] = [
        lambda: read_only.get("stage", {"new": 1}, write_result), lambda: read_only.remove("stage", key),
    ]  # fmt: skip
    for act in acts:
        said = as_somebody_else(act)
        assert said.startswith("OutputError: the cache"), said
        assert "--cache-dir" in said
    assert read_only.find("stage", key) is not None


def test_digests_of_read_only_downloads_are_computed(read_only: Cache) -> None:
    model = read_only.root.parent / "model.bin"
    model.write_bytes(b"x")
    digests = Digests(read_only.root / "downloads")
    assert as_somebody_else(lambda: digests.of(model)) == repr(hashlib.sha256(b"x").hexdigest())


def test_errors_about_other_files_are_no_matter_of_the_cache(cache: Cache, tmp_path: Path) -> None:
    def elsewhere(_out: Path) -> Made:
        raise PermissionError(errno.EACCES, "no", str(tmp_path / "elsewhere"))

    with pytest.raises(PermissionError):
        cache.get("stage", {}, elsewhere)


def test_disk_full_is_told_however_it_was_said(cache: Cache) -> None:
    """A driver of a shared cache that cannot write its copy here."""

    def full(_out: Path) -> Made:
        raise NetworkError("the place cannot be used") from OSError(errno.EDQUOT, "quota")

    with pytest.raises(NotEnoughDisk):
        cache.get("stage", {}, full)


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


def test_who_waits_for_another_process_can_be_stopped(cache: Cache) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(cache.root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    asked: list[float] = []

    def stopped() -> bool:
        asked.append(time.monotonic())
        return len(asked) == 2

    try:
        with pytest.raises(TargetCrashed, match="stopping"):
            cache.get("stage", {}, write_result, stopped)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert not cache.get("stage", {}, write_result, stopped).hit


def test_code_version_follows_the_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    before = code_version(tmp_path)
    (tmp_path / "notes.md").write_text("not code")
    assert code_version(tmp_path) == before
    (tmp_path / "a.py").write_text("x = 2")
    assert code_version(tmp_path) != before
