"""Keyless signatures on every road, with a stand-in for Sigstore's services (`keyless_tool`)."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from keyless_tool import IDENTITY, ISSUER, make_bundle, make_certificate, write_tool
from kobako.pipeline.errors import IntegrityError, MissingDependency, NetworkError, Untrusted, UsageError
from kobako.pipeline.publish import PublishRequest
from kobako.pipeline.pull import PullRequest
from kobako.pipeline.registry.roads import open_destination, open_source
from kobako.pipeline.sets.check import sign_set_in_ci, verify_set
from kobako.pipeline.sets.make import make_set, parse_assignment
from kobako.pipeline.sets.travel import publish_any, pull_any
from kobako.pipeline.sign import load_key, sign, sign_in_ci
from kobako.pipeline.signature.keyless import Identity, identity_of
from kobako.pipeline.signature.trust import Trust, choose_trust, read_trust, trust_identity
from kobako.pipeline.verify import verify

from tests.unit.roads.packages import ANYBODY, Signer, Watching, contents, expected, make_package, target_files, task
from tests.unit.roads.test_commands import kobako

US = trust_identity(IDENTITY, ISSUER)
OPTIONS = ("--identity", IDENTITY, "--issuer", ISSUER)


@pytest.fixture(autouse=True)
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = write_tool(tmp_path / "tool")
    monkeypatch.setenv("PATH", f"{found}:{os.environ['PATH']}")
    return found


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    package = make_package(tmp_path / "toy")
    sign_in_ci(package)
    return package


def test_a_keyless_signature_verifies_whole_and_in_part(signed: Path) -> None:
    done = verify(signed, US)
    assert done.signer is not None
    assert (done.signer.name, done.signer.issuer) == (IDENTITY, ISSUER)
    shutil.rmtree(signed / "coreml")
    assert verify(signed, US, ["litert"]).targets == ("litert", "executorch")
    (signed / "LICENSE").write_text("changed")
    with pytest.raises(IntegrityError, match="LICENSE"):
        verify(signed, US)


@pytest.mark.parametrize(
    "trust", [trust_identity("me@example.org", ISSUER), trust_identity(IDENTITY, "https://other.example.org"), Trust()]
)
def test_an_identity_that_nobody_named_is_unknown(signed: Path, trust: Trust) -> None:
    from dataclasses import replace

    with pytest.raises(Untrusted, match=r"by https://github\.com/me/models.*does not know"):
        verify(signed, trust)
    assert verify(signed, replace(trust, unsigned="allow")).signer is None


def test_a_forged_signature_is_refused_even_where_unsigned_is_allowed(signed: Path) -> None:
    """A certificate of ours around what it did not sign."""
    value = json.loads((signed / "model.sig").read_bytes())
    other = json.loads(make_bundle("toy", {"kobako.json": "0" * 64}))
    value["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
    (signed / "model.sig").write_text(json.dumps(value))
    with pytest.raises(Untrusted, match="is not by"):
        verify(signed, choose_trust(identity=IDENTITY, issuer=ISSUER, allow_unsigned=True))


def test_what_cannot_be_told_is_no_verdict(signed: Path, tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.environ["PATH"]
    monkeypatch.setenv("UNREACHABLE", "1")
    with pytest.raises(NetworkError, match="cannot be reached"):
        verify(signed, US)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingDependency, match="not on the PATH"):
        verify(signed, US)
    monkeypatch.setenv("PATH", path)
    shutil.rmtree(tool.parent / "client")
    with pytest.raises(MissingDependency, match=r"cannot check signatures: .*sigstore"):
        verify(signed, US)
    (tool / "python3").unlink()
    with pytest.raises(MissingDependency, match="an environment of its own"):
        verify(signed, US)


def test_whom_a_certificate_names() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert identity_of(make_certificate(key, "me@example.org", ISSUER)) == Identity("me@example.org", ISSUER)
    for broken in (make_certificate(key, IDENTITY, None), b"", b"\x30\x03\x02\x01\x01"):
        with pytest.raises(Untrusted, match="names no signer"):
            identity_of(broken)
    assert identity_of(make_certificate(key, IDENTITY, "")).issuer == "\f"  # a string's mark without a string


def test_a_damaged_certificate_ends_in_no_traceback() -> None:
    valid = make_certificate(ec.generate_private_key(ec.SECP256R1()), IDENTITY, ISSUER)
    chance, refused = random.Random(3), 0
    for _ in range(3000):
        damaged = bytearray(valid)
        damaged[chance.randrange(len(valid))] = chance.randrange(256)
        try:
            identity_of(bytes(damaged))
        except Untrusted:
            refused += 1
    assert refused > 500


def test_a_trust_file_names_identities(signed: Path, tmp_path: Path) -> None:
    def trust(*lines: str) -> Trust:
        entry = ["format = 1", "[[identity]]", 'name = "our CI"', f'identity = "{IDENTITY}"', f'issuer = "{ISSUER}"']
        (tmp_path / "trust.toml").write_text("\n".join([*entry, *lines]))
        return read_trust(tmp_path / "trust.toml")

    signer = verify(signed, trust('packages = ["toy-*"]')).signer
    assert signer is not None
    assert signer.name == "our CI"
    for line, said in (('packages = ["other"]', "may not sign"), ('revoked = "account stolen"', "revoked: account"),
                       ("until = 2020-01-31", "not believed after")):  # fmt: skip
        with pytest.raises(Untrusted, match=said):
            verify(signed, trust(line))
    another = '[[identity]]\nname = "b"\n'
    twice = f'{another}identity = "{IDENTITY}"\nissuer = "{ISSUER}"'
    numbers = f'{another}identity = 3\nissuer = "x"'
    for line in ('file = "x"', "until = 3", twice, f'{another}identity = "x"', numbers):
        with pytest.raises(UsageError, match="not right"):
            trust(line)


def test_options_that_contradict(tmp_path: Path, signer: Signer) -> None:
    for given in ({"identity": IDENTITY}, {"issuer": ISSUER}):
        with pytest.raises(UsageError, match="go together"):
            choose_trust(**given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="exclude each other"):
        choose_trust(signer.public, identity=IDENTITY, issuer=ISSUER)


def test_the_commands(tmp_path: Path) -> None:
    package, place = make_package(tmp_path / "toy"), tmp_path / "site"
    told = json.loads(kobako("sign", package, "--keyless", "--json").stdout)
    assert (told["identity"], told["issuer"]) == (IDENTITY, ISSUER)
    assert f"--identity {IDENTITY} --issuer {ISSUER}" in kobako("sign", package, "--keyless").stdout
    assert kobako("publish", package, place).returncode == 20
    assert kobako("publish", package, place, *OPTIONS).returncode == 0
    pull = ("pull", place, "--target", "litert", "--out", tmp_path / "out")
    assert kobako(*pull).returncode == 20
    pulled = kobako(*pull, *OPTIONS)
    assert f"signed by {IDENTITY}" in pulled.stdout, pulled.stderr
    assert contents(tmp_path / "out") == expected(package, "litert")
    assert kobako("verify", tmp_path / "out", *OPTIONS).returncode == 0
    assert kobako("verify", tmp_path / "out", "--allow-unsigned").returncode == 0
    assert kobako("verify", tmp_path / "out", "--identity", IDENTITY).returncode == 2
    assert kobako("pull", place, "--out", tmp_path / "any", "--allow-unsigned").returncode == 0


@pytest.mark.parametrize("how", ["set", "members"])
def test_sets_and_their_members(tmp_path: Path, signer: Signer, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set is signed without a key, or its members are and the set is not: Sigstore is asked about the set alone."""
    one = make_package(tmp_path / "one", name="one", tasks=[task("chat")])
    two = make_package(tmp_path / "two", target_files(seed=9), name="two", tasks=[task("embed")])
    if how == "members":
        sign_in_ci(one)
    pair, place = tmp_path / "pair", str(tmp_path / "site")
    make_set(pair, "pair", [parse_assignment(f"chat={one}"), parse_assignment(f"embed={two}")], open_source)
    if how == "set":
        assert sign_set_in_ci(pair).signer is not None
        trust = US
    else:
        done = kobako("sign", pair, "--key", signer.private)
        assert done.returncode == 0, done.stderr
        trust = signer.trust
        monkeypatch.setenv("PATH", "/nowhere")
    publish_any(PublishRequest(package=pair, trust=trust), open_destination(place), Watching())
    pull_any(
        open_source(place), PullRequest(targets=("litert",), trust=trust, out=tmp_path / "out"), Watching(), open_source
    )
    assert verify_set(tmp_path / "out", trust, ["litert"]).signer is not None
    with pytest.raises(Untrusted):
        verify_set(tmp_path / "out", Trust())
    (tmp_path / "out" / "two" / "LICENSE").unlink()
    with pytest.raises(IntegrityError):
        verify_set(tmp_path / "out", trust)


def test_a_key_takes_the_place_of_an_identity(signed: Path, signer: Signer) -> None:
    sign(signed, load_key(signer.private, None, None, ()))
    assert verify(signed, signer.trust).signer is not None
    with pytest.raises(Untrusted, match="does not know"):
        verify(signed, US)
    assert verify(signed, ANYBODY).signer is None
