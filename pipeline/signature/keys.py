"""Elliptic-curve keys and certificates: reading PEM files, signing, checking. `cryptography` does the mathematics."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Untrusted, UsageError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

MAX_PEM_BYTES = 2**20
NEW_KEY = "Make one with: kobako sign --new-key key.pem"


def read_pem(path: Path) -> bytes:
    """The bytes of a PEM file. Raises UsageError when it cannot be read or is too large to be one."""
    try:
        if path.stat().st_size > MAX_PEM_BYTES:
            raise UsageError(f"{path} is too large to be a PEM file.", "Give the file that holds the key.")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", NEW_KEY) from error


def private_key(pem: bytes, password: bytes | None, where: str) -> ec.EllipticCurvePrivateKey:
    """Raises UsageError when it is not a private key on P-256, P-384 or P-521, or the password is wrong."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{where} is not a private key that opens: {error}.", NEW_KEY) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{where} is not an elliptic-curve key.", NEW_KEY)
    _hash_for(key.curve.name, where)
    return key


def public_key(pem: bytes, where: str) -> ec.EllipticCurvePublicKey:
    """Raises UsageError when it is not an elliptic-curve public key (P-256, P-384 or P-521)."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{where} is not a public key in PEM form: {error}.", "Give the .pub file.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"{where} is not an elliptic-curve key.", NEW_KEY)
    _hash_for(key.curve.name, where)
    return key


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """The one PEM spelling of a key: what fingerprints are made of."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of `public_pem`, in hex: the key's name in signatures. ``sha256sum key.pub`` gives the same."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def new_key(password: bytes | None) -> tuple[bytes, bytes]:
    """A new P-256 key: private PEM (PKCS 8, encrypted when there is a password) and public PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return private, public_pem(key.public_key())


def sign_bytes(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """An ECDSA signature, DER."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return key.sign(data, ec.ECDSA(_hash_for(key.curve.name, "the key")))


def signature_holds(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` was made with the key's private half."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key.verify(signature, data, ec.ECDSA(_hash_for(key.curve.name, "the key")))
    except InvalidSignature:
        return False
    return True


def _hash_for(curve: str, where: str) -> HashAlgorithm:
    """The hash that Sigstore pairs with a curve. Raises UsageError for other curves."""
    from cryptography.hazmat.primitives import hashes

    known: dict[str, HashAlgorithm] = {
        "secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512(),
    }  # fmt: skip
    if curve not in known:
        raise UsageError(f"{where} is on the curve {curve}, which model signatures do not know.", NEW_KEY)
    return known[curve]


def certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    """Every certificate in a PEM file. Raises UsageError when there is none."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UsageError(f"{where} holds no certificate in PEM form: {error}.", "") from error


def certified_key(chain: tuple[bytes, ...], roots: list[x509.Certificate]) -> tuple[ec.EllipticCurvePublicKey, str]:
    """The signer's public key and name, when the DER `chain` (signer first) leads to one of `roots`.

    Validity is judged at the moment the signer's certificate began to be valid, as ``model_signing`` does: a signature
    carries no trustworthy time. An authority that is not believed any more leaves the trust file.
    Raises Untrusted.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec

    unreadable = (
        ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.UnsupportedGeneralNameType,
        x509.InvalidVersion, x509.DuplicateExtension,
    )  # fmt: skip
    try:
        signer, *between = [_certificate(der) for der in chain]
        _check_chain(signer, between, roots, signer.not_valid_before_utc)
        key = signer.public_key()
        usable = _may_sign(signer)
    except unreadable as error:
        raise Untrusted(f"the signer's certificate cannot be read: {error}.", "Do not use the package.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not usable:
        raise Untrusted("the signer's certificate is not one for signing with an elliptic-curve key.")
    return key, signer.subject.rfc4514_string()


def _certificate(der: bytes) -> x509.Certificate:
    """Raises ValueError, too, for a count of unused bits before the signature, which nothing signs and nobody reads."""
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    if not der.endswith(b"\0" + certificate.signature):
        raise ValueError("its signature is not a number of whole bytes")
    return certificate


def _check_chain(
    signer: x509.Certificate, between: list[x509.Certificate], roots: list[x509.Certificate], when: datetime.datetime
) -> None:
    from cryptography.x509 import verification

    builder = verification.PolicyBuilder().store(verification.Store(roots)).time(when)
    builder = builder.extension_policies(
        ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=verification.ExtensionPolicy.permit_all()
    )
    try:
        builder.build_client_verifier().verify(signer, between)
    except verification.VerificationError as error:
        raise Untrusted(
            f"the signer's certificate does not lead to a trusted authority: {error}.",
            "Add the authority to the trust file if you believe it.",
        ) from error


def _may_sign(signer: x509.Certificate) -> bool:
    """Whether a certificate allows digital signatures or code signing."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        if signer.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CODE_SIGNING in usage
