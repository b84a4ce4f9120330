"""Places that cannot be written, full disks and silent tools: an error of kobako's with its code, never a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from kobako.pipeline import place, worker
from kobako.pipeline.cli.files import check_writable, write_file
from kobako.pipeline.errors import NetworkError, NotEnoughDisk, NotFound, OutputError
from kobako.pipeline.fetch import hub_errors, pypi
from kobako.pipeline.process import Limits, Workers
from kobako.pipeline.signature import keyless
from test_one_document import report, validated
from tiny_package import write_package


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("mine")
    return {
        "below a file": tmp_path / "file" / "x.xml", "a directory": tmp_path, "too long": tmp_path / ("x" * 300),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["below a file", "a directory", "too long"])
def test_a_place_that_cannot_be_written(bad: dict[str, Path], kind: str) -> None:
    for act in (check_writable, lambda path: write_file(path, "text")):
        if kind == "too long" and act is check_writable:
            continue  # only writing tells
        with pytest.raises(OutputError, match="cannot be written"):
            act(bad[kind])


def test_a_new_directory_is_made_when_there_is_something_to_write(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep" / "x.xml")
    assert not (tmp_path / "new").exists()
    write_file(tmp_path / "new" / "deep" / "x.xml", "one")
    write_file(tmp_path / "new" / "deep" / "x.xml", "two", append=True)
    assert (tmp_path / "new" / "deep" / "x.xml").read_text() == "onetwo"


def test_an_unwritable_junit_is_told_before_the_proof(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from kobako.pipeline.cli import main

    (tmp_path / "file").write_text("mine")
    code, _, _ = validated(monkeypatch, capsys, report(1e-6, passed=True))
    assert code == 0
    for command in ("validate", "build"):
        monkeypatch.setattr(sys, "argv", ["kobako", command, "x", "--junit", str(tmp_path / "file" / "j.xml"), "-q"])
        with pytest.raises(SystemExit) as end:
            main.main()
        assert end.value.code == 12
        assert "j.xml cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(("place_", "code"), [("new/x.json", 0), ("file/x.json", 12)])
def test_provenance_goes_into_a_new_directory_or_says_why_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, place_: str, code: int
) -> None:
    from kobako.pipeline.cli import main

    (tmp_path / "file").write_text("mine")
    package = write_package(tmp_path / "work", tmp_path / "toy")
    monkeypatch.setattr(sys, "argv", ["kobako", "provenance", str(package), "--out", str(tmp_path / place_)])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == code, capsys.readouterr().err
    assert (tmp_path / place_).is_file() == (code == 0)


def test_a_silent_signer_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for program in (keyless.COMMAND, "python3"):
        (tmp_path / program).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(keyless, "TIMEOUT_S", 0.2)
    with pytest.raises(NetworkError, match="did not finish"):
        keyless.sign_keyless(tmp_path, ())
    with pytest.raises(NetworkError, match="did not finish"):
        keyless.checked_payload(b"{}", keyless.Identity("me", "issuer"))


@pytest.mark.parametrize("number", place.FULL)
def test_a_full_disk_and_a_used_up_quota_are_the_same(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = OSError(number, os.strerror(number))
    assert isinstance(hub_errors.translated(full, "a/b", None), NotEnoughDisk)
    with pytest.raises(NotEnoughDisk), pypi.disk_errors("x"):
        raise full
    assert isinstance(pypi.failure(["x"], f"ERROR: Could not install: [Errno 28] {os.strerror(number)}"), NotEnoughDisk)
    assert isinstance(pypi.failure(["x"], "ERROR: No matching distribution"), NotFound)

    def write(*_: object, **__: object) -> NoReturn:
        raise full

    path = tmp_path / "x"
    monkeypatch.setattr(Path, "open", write)
    with pytest.raises(NotEnoughDisk):
        write_file(path, "text")


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, 11), (errno.EDQUOT, 11), (errno.EIO, 13)])
def test_a_worker_tells_a_full_disk(
    number: int, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real `main` of a worker, with an operation that meets the error."""
    body = (
        "from kobako.pipeline import worker\n"
        f"def full(*_): raise OSError({number}, 'no')\n"
        "worker.OPERATIONS = {'inspect': full}\nworker.main()"
    )
    real = subprocess.Popen

    def popen(_arguments: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-c", body], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr("kobako.pipeline.process.subprocess.Popen", popen)
    assert worker.OPERATIONS
    with pytest.raises(Exception, match="no") as caught:
        Workers(Limits(memory_bytes=10**9, threads=1)).run("inspect", {}, log=tmp_path / "log")
    assert getattr(caught.value, "exit_code", 70) == expected
