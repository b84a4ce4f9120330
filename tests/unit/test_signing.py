"""Signatures: what is accepted, what is refused, and in which order. Real keys, real packages, no mocks."""

from __future__ import annotations

import datetime
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kobako.pipeline import verify as verify_module
from kobako.pipeline.errors import BadArtifact, IntegrityError, NotFound, OutputError, Untrusted, UsageError
from kobako.pipeline.sign import load_key, sign, write_new_key
from kobako.pipeline.signature.trust import Trust, choose_trust, read_trust, trust_key
from kobako.pipeline.verify import SIGNATURE_FILE, open_signature, verify
from tiny_package import write_package

ANYBODY = Trust(unsigned="allow")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``toy-int8``: signed; ``key.pem``, ``key.pub`` and ``other.pem``, ``other.pub`` beside it."""
    home = tmp_path_factory.mktemp("signing")
    package = write_package(home / "work", home / "toy-int8")
    for name in ("key", "other"):
        write_new_key(home / f"{name}.pem", None)
    sign(package, load_key(home / "key.pem", None, None, ()))
    return home


@pytest.fixture
def package(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "toy-int8", tmp_path / "toy-int8"))


@pytest.fixture
def trust(made: Path) -> Trust:
    return trust_key(made / "key.pub")


def damage(path: Path, offset: int, mask: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def test_a_signed_package_verifies(package: Path, trust: Trust) -> None:
    done = verify(package, trust)
    assert done.signer is not None
    assert done.signer.fingerprint == trust.keys[0].fingerprint
    assert done.targets == ("executorch", "litert")
    assert {"kobako.json", "sbom.cdx.json", "LICENSE", "NOTICE", "golden/golden.json"} <= done.files.keys()


@pytest.mark.parametrize("curve", ["secp256r1", "secp384r1", "secp521r1"])
def test_every_curve_with_an_encrypted_key(package: Path, tmp_path: Path, curve: str) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(
        {"secp256r1": ec.SECP256R1, "secp384r1": ec.SECP384R1, "secp521r1": ec.SECP521R1}[curve]()
    )
    encrypted = serialization.BestAvailableEncryption(b"secret")
    (tmp_path / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted)
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "k.pub").write_bytes(public)
    with pytest.raises(UsageError, match="private key that opens"):
        sign(package, load_key(tmp_path / "k.pem", b"wrong", None, ()))
    sign(package, load_key(tmp_path / "k.pem", b"secret", None, ()))
    assert verify(package, trust_key(tmp_path / "k.pub")).signer is not None


def test_unsigned_is_refused_unless_allowed(package: Path, trust: Trust) -> None:
    (package / SIGNATURE_FILE).unlink()
    with pytest.raises(Untrusted, match="not signed"):
        verify(package, trust)
    assert verify(package, ANYBODY).signer is None


def test_an_unknown_signer_is_refused_unless_allowed(made: Path, package: Path) -> None:
    with pytest.raises(Untrusted, match=r"other\.pub does not know"):
        verify(package, trust_key(made / "other.pub"))
    with pytest.raises(Untrusted, match="no trust file"):
        verify(package, Trust())
    assert verify(package, ANYBODY).signer is None


def test_a_forged_signature_is_refused_even_where_unsigned_is_allowed(made: Path, package: Path) -> None:
    """A signature that names a believed key and was not made with it is an attack, not a missing signature."""
    sign(package, load_key(made / "other.pem", None, None, ()))
    bundle = json.loads((package / SIGNATURE_FILE).read_text())
    known = trust_key(made / "key.pub", unsigned="allow")
    bundle["verificationMaterial"]["publicKey"]["hint"] = known.keys[0].fingerprint
    (package / SIGNATURE_FILE).write_text(json.dumps(bundle))
    with pytest.raises(Untrusted, match="not made with it"):
        verify(package, known)


def test_nothing_is_parsed_before_the_signature_holds(
    package: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = verify_module.read_manifest
    monkeypatch.setattr(verify_module, "read_manifest", lambda path: seen.append("manifest") or real(path))
    monkeypatch.setattr(verify_module, "parse_statement", lambda data: seen.append("statement"))
    damage(package / SIGNATURE_FILE, (package / SIGNATURE_FILE).read_bytes().index(b'"payload": "') + 40, 1)
    with pytest.raises(Untrusted):
        verify(package, trust)
    assert seen == []


def test_a_manifest_that_was_changed_is_never_parsed(package: Path, trust: Trust) -> None:
    (package / "kobako.json").write_text("[" * 100_000)
    with pytest.raises(IntegrityError, match=r"kobako\.json .* was changed"):
        verify(package, trust)


def test_every_region_of_every_file_counts(package: Path, trust: Trust) -> None:
    """A bit in each 8 bytes of the signature and in each 64 of every other file; ``scripts/fuzz regions`` does each."""
    chance = random.Random(7)
    missed, flips = [], 0
    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        step = 8 if path.name == SIGNATURE_FILE else 64
        original = path.read_bytes()
        for start in range(0, len(original), step):
            offset = start + chance.randrange(min(step, len(original) - start))
            damage(path, offset, 1 << chance.randrange(8))
            flips += 1
            try:
                verify(package, trust)
                missed.append((path.name, offset))
            except IntegrityError:
                pass
            path.write_bytes(original)
    assert missed == []
    assert flips > 1000
    verify(package, trust)


def test_a_package_pulled_for_one_target_verifies(package: Path, trust: Trust) -> None:
    shutil.rmtree(package / "executorch")
    done = verify(package, trust, ["litert"])
    assert done.targets == ("litert",)
    with pytest.raises(IntegrityError, match="executorch are missing"):
        verify(package, trust, ["executorch"])
    with pytest.raises(NotFound, match="coreml"):
        verify(package, trust, ["coreml"])


@pytest.mark.parametrize("gone", ["executorch/tokenizer.json", "LICENSE", "golden/golden.json", "kobako.json"])
def test_anything_else_that_is_missing_is_damage(package: Path, trust: Trust, gone: str) -> None:
    (package / gone).unlink()
    with pytest.raises(IntegrityError, match=gone):
        verify(package, trust)


def test_a_package_without_any_target_is_refused(package: Path, trust: Trust) -> None:
    shutil.rmtree(package / "executorch")
    shutil.rmtree(package / "litert")
    with pytest.raises(IntegrityError, match="no target"):
        verify(package, trust)


def _link(package: Path) -> None:
    (package / "litert" / "model.bin").unlink()
    (package / "litert" / "model.bin").symlink_to(package / "executorch" / "model.bin")


def _stranger(package: Path) -> None:
    (package / "litert" / "plugin.so").write_bytes(b"\x7fELF")


def _pipe(package: Path) -> None:
    os.mkfifo(package / "pipe")


def _linked_folder(package: Path) -> None:
    (package / "golden").rename(package.parent / "golden")
    (package / "golden").symlink_to(package.parent / "golden")


@pytest.mark.parametrize("change", [_link, _stranger, _pipe, _linked_folder])
def test_links_devices_and_strangers_are_refused(package: Path, trust: Trust, change: Callable[[Path], None]) -> None:
    change(package)
    with pytest.raises(IntegrityError):
        verify(package, trust)
    with pytest.raises(IntegrityError):
        verify(package, ANYBODY)


def test_a_signature_may_not_be_a_link_or_a_pipe(package: Path, trust: Trust) -> None:
    (package / SIGNATURE_FILE).unlink()
    os.mkfifo(package / SIGNATURE_FILE)  # reading it would wait for ever
    with pytest.raises(Untrusted, match="plain file"):
        verify(package, trust)


def test_damage_is_never_vouched_for(made: Path, package: Path) -> None:
    damage(package / "litert" / "model.bin", 100, 1)
    with pytest.raises(IntegrityError, match=r"model\.bin"):
        sign(package, load_key(made / "key.pem", None, None, ()))


def test_only_a_whole_package_is_signed(made: Path, package: Path) -> None:
    shutil.rmtree(package / "litert")
    with pytest.raises(IntegrityError, match="litert"):
        sign(package, load_key(made / "key.pem", None, None, ()))


def test_a_damaged_signature_can_be_replaced(made: Path, package: Path, trust: Trust) -> None:
    (package / SIGNATURE_FILE).write_text("not a signature")
    with pytest.raises(Untrusted, match="not a model signature"):
        verify(package, ANYBODY)
    sign(package, load_key(made / "key.pem", None, None, ()))
    verify(package, trust)


def test_keys_are_never_overwritten_and_are_private(tmp_path: Path) -> None:
    write_new_key(tmp_path / "k.pem", None)
    assert (tmp_path / "k.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(OutputError, match="never overwritten"):
        write_new_key(tmp_path / "k.pem", None)


def test_a_directory_that_is_no_package(tmp_path: Path, trust: Trust) -> None:
    with pytest.raises(BadArtifact, match="no such directory"):
        verify(tmp_path / "nothing", trust)
    with pytest.raises(Untrusted, match="not signed"):
        verify(tmp_path, trust)


# --- the trust file -------------------------------------------------------------------------------------------------


def trust_file(home: Path, text: str) -> Path:
    path = home / "trust.toml"
    path.write_text(text)
    return path


def test_rotation_two_keys_side_by_side(made: Path, package: Path) -> None:
    entries = "".join(f'[[key]]\nname = "{name}"\nfile = "{made / name}.pub"\n' for name in ("key", "other"))
    trust = read_trust(trust_file(package.parent, "format = 1\n" + entries))
    assert verify(package, trust).signer is not None
    sign(package, load_key(made / "other.pem", None, None, ()))
    signer = verify(package, trust).signer
    assert signer is not None
    assert signer.name == "other"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('revoked = "lost laptop"', "revoked: lost laptop"),
        ("until = 2020-01-31", "not believed after 2020-01-31"),
        ('packages = ["smollm2-*", "gemma-*"]', "may not sign toy-int8"),
    ],
)
def test_keys_with_bounds(made: Path, package: Path, line: str, message: str) -> None:
    public = (made / "key.pub").read_text()
    text = f'format = 1\n[[key]]\nname = "release"\npublic = """{public}"""\n{line}\n'
    with pytest.raises(Untrusted, match=message):
        verify(package, read_trust(trust_file(package.parent, text)))


def test_a_key_is_believed_on_its_last_day(made: Path, package: Path) -> None:
    text = f'format = 1\n[[key]]\nname = "release"\nfile = "{made}/key.pub"\nuntil = 2026-05-01\npackages = ["toy-*"]\n'
    trust = read_trust(trust_file(package.parent, text))
    data = (package / SIGNATURE_FILE).read_bytes()
    open_signature(data, trust, datetime.date(2026, 5, 1)).check_package("toy-int8")
    with pytest.raises(Untrusted, match="not believed after"):
        open_signature(data, trust, datetime.date(2026, 5, 2))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "format = 2\n",
        "format = 1\nunsigned = true\n",
        'format = 1\n[[key]]\nname = "a"\nfile = "absent.pub"\n',
        'format = 1\n[[key]]\nname = "a"\npublic = "not a key"\n',
        'format = 1\n[[key]]\nname = "a"\n',
        'format = 1\n[[key]]\nnam = "a"\n',
        'format = 1\nkeys = []\n',
        'format = 1\nkey = 3\n',
        'format = 1\n[[key]]\nname = "a"\nfile = "KEY"\nuntill = 2027-01-01\n',
        'format = 1\n[[key]]\nname = "a"\nfile = "KEY"\nuntil = "2027-01-01"\n',
        'format = 1\n[[key]]\nname = "a"\nfile = "KEY"\npackages = "toy"\n',
        'format = 1\n[[authority]]\nname = "a"\nfile = "KEY"\n',
        "format = 1\nthis is not TOML",
    ],
)  # fmt: skip
def test_a_trust_file_that_is_not_right_is_refused(made: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        read_trust(trust_file(tmp_path, text.replace("KEY", str(made / "key.pub"))))


def test_which_trust_is_chosen(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOBAKO_TRUST", str(tmp_path / "absent.toml"))
    with pytest.raises(UsageError, match="cannot be read"):
        choose_trust()  # a variable that names a missing file must not weaken anything silently
    path = trust_file(tmp_path, f'format = 1\n[[key]]\nname = "release"\nfile = "{made}/key.pub"\n')
    monkeypatch.setenv("KOBAKO_TRUST", str(path))
    assert choose_trust().keys[0].name == "release"
    assert choose_trust(allow_unsigned=True).unsigned == "allow"
    assert choose_trust(made / "other.pub").keys[0].name == "other.pub"
    with pytest.raises(UsageError, match="exclude each other"):
        choose_trust(made / "key.pub", path)
