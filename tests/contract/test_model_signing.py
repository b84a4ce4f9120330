"""Our signatures and those of PyPI's model-signing, held against each other: nobody needs kobako to check a package.

The tool cannot share our environment (docs/adr/0005), so it gets one of its own beside the cache, made once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from kobako.pipeline.cache import default_root
from kobako.pipeline.errors import IntegrityError, Untrusted
from kobako.pipeline.sign import load_key, sign, write_new_key
from kobako.pipeline.signature.trust import trust_key
from kobako.pipeline.verify import SIGNATURE_FILE, verify

UNIT = Path(__file__).parent.parent / "unit"
KEPT = Path(__file__).parent.parent / "fixtures" / "packages" / "0.1.0"
REQUIREMENTS = ("model-signing==1.1.1", "pyopenssl>=25")  # it imports OpenSSL without declaring it
KOBAKO = str(Path(sys.executable).parent / "kobako")

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def environment() -> Path:
    """The ``bin`` folder of an environment with model-signing."""
    home = default_root() / "environments" / REQUIREMENTS[0].replace("==", "-")
    if not (home / "ready").exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True, timeout=600
        )
        (home / "ready").touch()
    return home / "bin"


@pytest.fixture(scope="module")
def tool(environment: Path) -> Tool:
    """``model_signing`` with these arguments."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(environment / "model_signing"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return call


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """``toy-int8``, unsigned, and a key pair."""
    shutil.copytree(KEPT / "toy-int8", tmp_path / "toy-int8")
    (tmp_path / "toy-int8" / SIGNATURE_FILE).unlink()
    write_new_key(tmp_path / "key.pem", None)
    return tmp_path


def test_the_standard_tool_verifies_what_kobako_signs(tool: Tool, home: Path) -> None:
    package = home / "toy-int8"
    sign(package, load_key(home / "key.pem", None, None, ()))
    arguments = ("verify", "key", package, "--signature", package / SIGNATURE_FILE, "--public_key", home / "key.pub")
    assert "succeeded" in tool(*arguments).stdout
    (package / "LICENSE").write_text("Do what you like.")
    assert tool(*arguments).returncode != 0


def test_the_standard_tool_verifies_packages_of_every_release(tool: Tool) -> None:
    for release in sorted(KEPT.parent.iterdir()):
        package = release / "toy-int8"
        arguments = ("--signature", package / SIGNATURE_FILE, "--public_key", release / "signer.pub")
        shown = tool("verify", "key", package, *arguments)
        assert shown.returncode == 0, shown.stdout + shown.stderr


def test_kobako_verifies_what_the_standard_tool_signs(tool: Tool, home: Path) -> None:
    package = home / "toy-int8"
    shown = tool(
        "sign", "key", package, "--signature", package / SIGNATURE_FILE, "--private_key", home / "key.pem",
        "--ignore-paths", package / SIGNATURE_FILE,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    signer = verify(package, trust_key(home / "key.pub")).signer
    assert signer is not None
    (package / "NOTICE").write_text("x")
    with pytest.raises(IntegrityError, match="NOTICE"):
        verify(package, trust_key(home / "key.pub"))


def test_certificates_both_ways(tool: Tool, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(UNIT))
    from kobako.pipeline.signature.trust import choose_trust
    from test_certificates import issue

    root = issue("root", None, authority=True)
    middle = issue("middle", root, authority=True)
    issue("signer", middle, authority=False).write(home, "signer")
    for name, issued in (("root", root), ("middle", middle)):
        issued.write(home, name)
    package, signature = home / "toy-int8", home / "toy-int8" / SIGNATURE_FILE
    sign(package, load_key(home / "signer.pem", None, home / "signer.crt", (home / "middle.crt",)))
    chain = ("--certificate_chain", home / "root.crt")
    shown = tool("verify", "certificate", package, "--signature", signature, *chain)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    shown = tool(
        "sign", "certificate", package, "--signature", signature, "--private_key", home / "signer.pem",
        "--signing_certificate", home / "signer.crt", "--certificate_chain", home / "middle.crt",
        "--ignore-paths", signature,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert verify(package, choose_trust(certificate=home / "root.crt")).signer is not None
    with pytest.raises(Untrusted):
        verify(package, choose_trust(home / "key.pub"))


def test_the_commands(home: Path) -> None:
    """``kobako sign`` and ``verify`` as a user meets them: exit codes, JSON, a key from --new-key, partial packages."""

    def kobako(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KOBAKO_TRUST": "", **variables}
        return subprocess.run(
            [KOBAKO, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
        )

    package, key = home / "toy-int8", home / "mine.pem"
    assert kobako("verify", package, "--key", home / "key.pub").returncode == 20
    assert kobako("verify", package, "--allow-unsigned").returncode == 0
    secret = {"KOBAKO_KEY_PASSWORD": "s3cret words"}
    made = json.loads(kobako("sign", "--new-key", key, "--json", **secret).stdout)
    assert b"ENCRYPTED" in key.read_bytes()
    assert kobako("sign", package, "--key", key).returncode == 2  # the password is missing
    shown = kobako("sign", package, "--key", key, **secret)
    assert shown.returncode == 0, shown.stderr
    assert "s3cret" not in shown.stdout + shown.stderr
    shutil.rmtree(package / "executorch")
    verified = kobako("verify", package, "--key", made["public"], "--target", "litert", "--json")
    assert json.loads(verified.stdout)["targets"] == ["litert"]
    assert json.loads(verified.stdout)["signer"]["fingerprint"] == made["fingerprint"]
    assert kobako("verify", package, "--key", home / "key.pub").returncode == 20
    (package / "litert" / "model.bin").write_bytes(b"other")
    shown = kobako("verify", package, "--key", made["public"])
    assert shown.returncode == 7
    assert "litert/model.bin" in shown.stderr


def test_keyless_signing_without_an_identity_fails_and_says_why(environment: Path, home: Path) -> None:
    """Success needs Sigstore's services and a CI identity; here the real tool runs and has neither."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ACTIONS_")}
    variables["PATH"] = f"{environment}:{variables['PATH']}"
    command = [KOBAKO, "sign", str(home / "toy-int8"), "--keyless"]
    shown = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, check=False)
    assert shown.returncode == 5, shown.stderr
    assert "id-token: write" in shown.stderr
    assert not (home / "toy-int8" / SIGNATURE_FILE).exists()


PROBE = """
import json, sys
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
value = json.load(open(sys.argv[1]))
pb = json_format.ParseDict(value, statement_pb2.Statement())  # refuses unknown fields
made = Statement.copy_from_pb(pb)
made.validate()
predicate = json_format.ParseDict(value["predicate"], provenance_pb2.Provenance())
print(predicate.build_definition.build_type, len(pb.subject))
"""


def test_provenance_is_valid_by_the_official_definitions(environment: Path, home: Path) -> None:
    """in-toto's and SLSA's own protobuf definitions, which refuse fields they do not know."""
    out = home / "provenance.json"
    done = subprocess.run(
        [KOBAKO, "provenance", home / "toy-int8", "--out", out], capture_output=True, text=True, check=True
    )
    assert "files come from" in done.stdout
    command = [environment / "python", "-c", PROBE, out]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.split()[1] == str(len([p for p in (home / "toy-int8").rglob("*") if p.is_file()]))
    statement = json.loads(out.read_text())
    statement["predicate"]["buildDefinition"]["invented"] = 1
    out.write_text(json.dumps(statement))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
