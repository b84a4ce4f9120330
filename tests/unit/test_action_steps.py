"""The action's steps after the build, as GitHub's runner would run them: nothing of them needs a model."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from keyless_tool import IDENTITY, ISSUER, write_tool
from kobako.pipeline.sign import write_new_key
from kobako.pipeline.signature.trust import trust_identity, trust_key
from kobako.pipeline.verify import verify
from tiny_package import write_package

STEPS = Path(__file__).parents[2] / ".github" / "actions" / "build" / "steps"


class Steps:
    """The script, in a job of ``me/models``; `log` is what it printed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = ""
        self.summary = home / "summary.md"
        self.package = write_package(home / "work", home / "toy-int8")

    def run(self, step: str, **variables: str) -> dict[str, str]:
        """Run a step; its outputs."""
        outputs = self.home / f"{step}.out"
        outputs.unlink(missing_ok=True)
        known = {"RUNNER_TEMP": str(self.home), "GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(self.summary)}
        known |= {"PYTHON": sys.executable, "PACKAGE": str(self.package), "GITHUB_REPOSITORY": "me/models"}
        done = subprocess.run(
            ["bash", STEPS, step], env=os.environ | known | variables, capture_output=True, text=True, check=False
        )
        self.log += done.stdout + done.stderr
        assert done.returncode == 0, done.stderr[-3000:]
        lines = outputs.read_text().splitlines() if outputs.exists() else []
        return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


@pytest.mark.parametrize("repository", ["me/models", "you/models"])
def test_keyless_to_the_end(steps: Steps, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = write_tool(steps.home / "tool")
    (steps.home / "kobako-tools").symlink_to(tool)  # where `install` leaves it
    assert steps.run("install", SIGN="keyless") == {"python": sys.executable}
    assert not (steps.home / "model-signing").exists(), "it was there already"
    signed = steps.run("sign", SIGN="keyless", GITHUB_REPOSITORY=repository)
    assert signed == {"identity": IDENTITY, "issuer": ISSUER}
    assert ("::warning" in steps.log) == (repository != "me/models"), steps.log
    assert IDENTITY in steps.summary.read_text()
    monkeypatch.setenv("PATH", f"{tool}:{os.environ['PATH']}")
    verify(steps.package, trust_identity(IDENTITY, ISSUER))
    place = steps.home / "site"
    given = {"IDENTITY": signed["identity"], "ISSUER": signed["issuer"], "PUBLIC_KEY": ""}
    address = steps.run("publish", PUBLISH=str(place), **given)["address"]
    assert address == f"{place}@{json.loads((place / 'index.json').read_text())['latest']}"


def test_an_encrypted_key_to_the_end(steps: Steps) -> None:
    public, _ = write_new_key(steps.home / "secret.pem", b"s3cret words")
    secret = (steps.home / "secret.pem").read_text()
    assert "ENCRYPTED" in secret
    given = {"SIGN": "key", "KOBAKO_SIGNING_KEY": secret}
    with pytest.raises(AssertionError, match="private key that opens"):
        steps.run("sign", **given, KOBAKO_KEY_PASSWORD="")
    signed = steps.run("sign", **given, KOBAKO_KEY_PASSWORD="s3cret words")
    assert Path(signed["public"]).read_bytes() == public.read_bytes()
    verify(steps.package, trust_key(public))
    assert steps.run("publish", PUBLISH=str(steps.home / "site"), PUBLIC_KEY=signed["public"])["address"]
    assert "s3cret" not in steps.log
    assert not list(steps.home.glob("key.??????")), "the private key stayed on the disk"


def test_provenance_names_every_file_where_it_lies(steps: Steps) -> None:
    made = steps.run("provenance", GITHUB_SHA="0" * 40, GITHUB_WORKFLOW_REF="me/models/.github/workflows/x.yml@main")
    statement = json.loads(Path(made["statement"]).read_text())
    assert steps.package not in Path(made["statement"]).parents, "a package's bytes are signed: nothing is added"
    assert json.loads(Path(made["predicate"]).read_text()) == statement["predicate"]
    assert statement["predicate"]["runDetails"]["builder"]["id"].endswith("me/models/.github/workflows/x.yml@main")
    lines = Path(made["subjects"]).read_text().splitlines()
    assert len(lines) == len(statement["subject"]) > 5
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((steps.package / name).read_bytes()).hexdigest() == digest
    assert any("/" in line for line in lines)


def test_an_unknown_step_is_refused(steps: Steps) -> None:
    with pytest.raises(AssertionError, match="usage"):
        steps.run("provenence")
