"""Signing with a certificate: accepted through its authority only, and only for signing."""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from kobako.pipeline.errors import Untrusted, UsageError
from kobako.pipeline.sign import load_key, sign
from kobako.pipeline.signature.trust import choose_trust
from kobako.pipeline.verify import verify
from tiny_package import write_package

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, home: Path, name: str) -> None:
        (home / f"{name}.crt").write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (home / f"{name}.pem").write_bytes(self.key.private_bytes(encoding, form, serialization.NoEncryption()))


def issue(name: str, by: Issued | None, *, authority: bool, days: int = 3650, signing: bool = True) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = by.certificate.subject if by else subject
    signer = by.key if by else key
    usage = x509.KeyUsage(
        digital_signature=not authority and signing, key_cert_sign=authority, crl_sign=authority,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not authority:
        purpose = ExtendedKeyUsageOID.CODE_SIGNING if signing else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return Issued(builder.sign(signer, hashes.SHA256()), key)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, one below it, signers of both kinds, a stranger; and an unsigned package."""
    place = tmp_path_factory.mktemp("certificates")
    root = issue("root", None, authority=True)
    middle = issue("middle", root, authority=True)
    issue("signer", middle, authority=False, days=1).write(place, "signer")  # has ended: judged when it was made
    issue("server", middle, authority=False, signing=False).write(place, "server")
    issue("stranger", None, authority=True).write(place, "stranger")
    root.write(place, "root")
    middle.write(place, "middle")
    write_package(place / "work", place / "toy-int8")
    return place


@pytest.fixture
def package(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "toy-int8", tmp_path / "toy-int8"))


def test_accepted_through_its_authority(home: Path, package: Path) -> None:
    sign(package, load_key(home / "signer.pem", None, home / "signer.crt", (home / "middle.crt",)))
    done = verify(package, choose_trust(certificate=home / "root.crt"))
    assert done.signer is not None
    assert done.signer.name == "CN=signer"


def test_refused_without_the_authority_the_link_or_the_purpose(home: Path, package: Path) -> None:
    root = choose_trust(certificate=home / "root.crt")
    sign(package, load_key(home / "signer.pem", None, home / "signer.crt", (home / "middle.crt",)))
    with pytest.raises(Untrusted, match="does not vouch for"):
        verify(package, choose_trust(certificate=home / "stranger.crt"))
    sign(package, load_key(home / "signer.pem", None, home / "signer.crt", ()))
    with pytest.raises(Untrusted, match="does not vouch for"):
        verify(package, root)
    sign(package, load_key(home / "server.pem", None, home / "server.crt", (home / "middle.crt",)))
    with pytest.raises(Untrusted, match="not one for signing"):
        verify(package, root)


def test_a_certificate_must_be_of_the_key(home: Path, package: Path) -> None:
    with pytest.raises(UsageError, match="not one of"):
        sign(package, load_key(home / "signer.pem", None, home / "server.crt", ()))


def test_no_bit_of_a_chain_may_change() -> None:
    """Found by `scripts/fuzz certificates`: how many bits of a signature count is a byte that nothing signs."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from kobako.pipeline.errors import Untrusted
    from kobako.pipeline.signature.keys import certified_key

    def even() -> tuple[Issued, tuple[bytes, ...]]:
        """A chain whose signer's signature ends in a zero bit, which may be called unused."""
        while True:
            root = issue("root", None, authority=True)
            signer = issue("signer", root, authority=False)
            if signer.certificate.signature[-1] % 2 == 0:
                return root, (signer.certificate.public_bytes(Encoding.DER),)

    root, (der,) = even()
    certified_key((der,), [root.certificate])
    count = len(der) - len(x509.load_der_x509_certificate(der).signature) - 1
    assert der[count] == 0
    with pytest.raises(Untrusted):
        certified_key((der[:count] + b"\x01" + der[count + 1 :],), [root.certificate])
