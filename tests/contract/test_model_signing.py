"""Our signatures and those of PyPI's model-signing, held against each other: nobody needs kobako to check a package.

The tool cannot share our environment (docs/adr/0005), so it gets one of its own beside the cache, made once.
"""

from __future__ import annotations

import json
import os
import re
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
from kobako.pipeline.signature.keyless import Identity, checked_payload
from kobako.pipeline.signature.trust import trust_key
from kobako.pipeline.verify import SIGNATURE_FILE, verify

from tests.unit.keyless_tool import IDENTITY, ISSUER, make_bundle, write_tool

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


def test_the_standard_tool_verifies_the_table_of_a_set(tool: Tool, home: Path) -> None:
    """As docs/sets.md says: the signature is over ``kobako-set.json``, which holds a digest of every member."""
    from kobako.pipeline.registry.roads import open_source
    from kobako.pipeline.sets.check import sign_set
    from kobako.pipeline.sets.make import make_set, parse_assignment

    from tests.unit.roads.packages import make_package, task

    member = make_package(home / "member", tasks=[task("chat")])
    pair = home / "pair"
    make_set(pair, "pair", [parse_assignment(f"chat={member}")], open_source)
    sign_set(pair, load_key(home / "key.pem", None, None, ()))
    arguments = ("verify", "key", pair, "--signature", pair / SIGNATURE_FILE, "--public_key", home / "key.pub")
    shown = tool(*arguments, "--ignore_unsigned_files")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert tool(*arguments).returncode != 0
    (pair / "kobako-set.json").write_text((pair / "kobako-set.json").read_text() + " ")
    assert tool(*arguments, "--ignore_unsigned_files").returncode != 0


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


def keyless(path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """kobako with `path` before PATH, and no CI identity."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ACTIONS_")}
    variables |= {"PATH": f"{path}:{variables['PATH']}", "no_proxy": "", "https_proxy": "http://127.0.0.1:9"}
    command = [KOBAKO, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, check=False)


OPTIONS = ("--identity", IDENTITY, "--issuer", ISSUER)


def test_keyless_without_sigstores_services_is_no_verdict(environment: Path, home: Path) -> None:
    """The real tool, with nothing to reach: neither "not signed by them" nor a hint at permissions."""
    package = home / "toy-int8"
    shown = keyless(environment, "sign", package, "--keyless")
    assert (shown.returncode, "cannot be reached" in shown.stderr) == (5, True), shown.stderr
    assert not (package / SIGNATURE_FILE).exists()
    (package / SIGNATURE_FILE).write_bytes(make_bundle("toy-int8", {}))
    shown = keyless(environment, "verify", package, *OPTIONS)
    assert (shown.returncode, "cannot be reached" in shown.stderr) == (5, True), shown.stderr


def test_sigstores_client_refuses_a_certificate_of_nobody(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, with the keys that came with it."""
    monkeypatch.setenv("PATH", f"{environment}:{os.environ['PATH']}")
    with pytest.raises(Untrusted, match="is not by"):
        checked_payload(make_bundle("toy-int8", {}), Identity(IDENTITY, ISSUER), offline=True)


def test_keyless_asks_the_tool_only_what_it_takes(tool: Tool, home: Path) -> None:
    options = set(re.findall(r"--\w[\w-]+", tool("sign", "sigstore", "--help").stdout))
    package = home / "toy-int8"
    bin_ = write_tool(home / "tool")
    assert keyless(bin_, "sign", package, "--keyless").returncode == 0
    recorder = bin_ / "model_signing"
    recorder.write_text(
        f"#!{sys.executable}\nimport sys\nprint(*sys.argv[1:], file=open({str(home / 'asked')!r}, 'w'))\n"
    )
    assert keyless(bin_, "sign", package, "--keyless").returncode == 0  # the older signature still stands
    asked = (home / "asked").read_text().split()
    assert asked[:3] == ["sign", "sigstore", str(package)]
    assert {word for word in asked if word.startswith("--")} <= options


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
