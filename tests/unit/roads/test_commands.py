"""The commands as a user meets them: results on stdout, progress on stderr, exit codes, help with an example."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.roads.file_server import FileServer
from tests.unit.roads.packages import Signer, contents, expected, make_package


def kobako(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kobako.pipeline.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["publish", "pull", "matrix"])
def test_help_has_an_example(command: str) -> None:
    shown = kobako(command, "--help")
    assert shown.returncode == 0
    assert f"Example: kobako {command}" in shown.stdout


def test_publish_and_pull(package: Path, signer: Signer, tmp_path: Path) -> None:
    sent = kobako("publish", package, tmp_path / "site" / "toy", "--key", signer.public)
    assert sent.returncode == 0, sent.stderr
    assert "published: " in sent.stdout
    assert sent.stderr.startswith("publish …")
    server = FileServer(tmp_path / "site")
    try:
        pull = ("pull", f"{server.url}/toy", "--target", "litert", "--out", tmp_path / "out", "--key", signer.public)
        pulled = kobako(*pull, "--json")
        assert pulled.returncode == 0, pulled.stderr
        result = json.loads(pulled.stdout)
        assert (result["targets"], result["signer"], result["unchanged"]) == (["litert"], "key.pub", False)
        assert contents(tmp_path / "out") == expected(package, "litert")
        again = kobako(*pull)
        assert "was up to date" in again.stdout
        assert kobako(*pull, "--quiet").stderr == ""
    finally:
        server.close()


def test_exit_codes(signer: Signer, tmp_path: Path) -> None:
    unsigned = make_package(tmp_path / "toy")
    assert kobako("publish", unsigned, tmp_path / "site", "--key", signer.public).returncode == 20
    assert kobako("publish", unsigned, tmp_path / "site", "--allow-unsigned").returncode == 0
    assert kobako("pull", tmp_path / "site", "--out", tmp_path / "out").returncode == 20
    assert not (tmp_path / "out").exists()
    assert kobako("pull", tmp_path / "site", "--out", tmp_path / "out", "--allow-unsigned").returncode == 0
    assert kobako("pull", tmp_path / "nowhere", "--out", tmp_path / "o").returncode == 3
    assert kobako("pull", "ftp://x/y", "--out", tmp_path / "o").returncode == 2
    shown = kobako("pull", tmp_path / "nowhere", "--out", tmp_path / "o", "--json")
    assert json.loads(shown.stdout)["error"]["kind"] == "NotFound"
