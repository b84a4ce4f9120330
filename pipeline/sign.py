"""A package → the same package with ``model.sig``, in the OpenSSF model-signing format.

What lies there is checked against its manifest first, so that damage is never vouched for.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from .errors import BadArtifact, IntegrityError, OutputError, UsageError
from .signature import keys
from .signature.bundle import SIGNATURE_FILE, Bundle, encode_bundle, parse_bundle, signed_bytes
from .signature.statement import Statement, encode_statement
from .signature.trust import Believed, Trust, trust_identity
from .verify import Verified, check_contents, verify

# What model_signing leaves out by default: named in the signature, so that its own command verifies without options.
IGNORED = (SIGNATURE_FILE, ".git", ".gitattributes", ".github", ".gitignore")


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A private key, and the certificates (DER, the signer's first) when one vouches for it."""

    pem: bytes
    password: bytes | None = None
    chain: tuple[bytes, ...] = ()
    where: str = "the key"


def sign(package: Path, signing_key: SigningKey) -> Verified:
    """Write ``model.sig`` into `package`, verify it as a stranger would, and return that.

    An older signature is replaced. Raises IntegrityError when the files are not what the manifest says or a target is
    missing, BadArtifact when it is no package, UsageError for a key that cannot sign, OutputError.
    """
    whole = _whole(package)
    mine = write_signature(package, Statement(name=str(whole.manifest["name"]), digests=whole.files), signing_key)
    return verify(package, mine) if mine else whole


def write_signature(directory: Path, statement: Statement, signing_key: SigningKey) -> Trust | None:
    """Write ``model.sig`` over a checked statement, and return the Trust that verifies it; None for a certificate's.

    Raises UsageError for a key that cannot sign, OutputError.
    """
    key = keys.private_key(signing_key.pem, signing_key.password, signing_key.where)
    payload = encode_statement(statement, IGNORED)
    fingerprint = keys.fingerprint(key.public_key())
    bundle = Bundle(
        payload=payload,
        signature=keys.sign_bytes(key, signed_bytes(payload)),
        key_hint="" if signing_key.chain else fingerprint,
        certificates=signing_key.chain,
    )
    if signing_key.chain:
        _check_certificate(signing_key, fingerprint)
    _write(directory / SIGNATURE_FILE, encode_bundle(bundle))
    if signing_key.chain:
        return None
    mine = Believed(name=signing_key.where, pem=keys.public_pem(key.public_key()), fingerprint=fingerprint)
    return Trust(keys=(mine,))


def sign_in_ci(package: Path) -> Verified:
    """`sign` with the identity of the CI job that runs, through Sigstore. Raises MissingDependency, NetworkError."""
    _whole(package)
    return verify(package, write_keyless(package))


def write_keyless(directory: Path, unsigned: tuple[str, ...] = ()) -> Trust:
    """`write_signature` with the identity of the CI job that runs; the Trust that verifies it.

    Args:
        unsigned: folders that the signature does not vouch for.
    """
    from .signature.keyless import identity_of, sign_keyless

    sign_keyless(directory, (*IGNORED, *unsigned))
    try:
        made = parse_bundle((directory / SIGNATURE_FILE).read_bytes())
    except OSError as error:
        raise OutputError(f"{directory / SIGNATURE_FILE} was not written: {error.strerror}.") from error
    if not made.keyless:
        raise BadArtifact(f"{directory / SIGNATURE_FILE} is no keyless signature.", "Which model_signing is this?")
    signer = identity_of(made.certificates[0])
    return trust_identity(signer.name, signer.issuer)


def load_key(path: Path, password: bytes | None, certificate: Path | None, chain: tuple[Path, ...]) -> SigningKey:
    """A SigningKey from PEM files. Raises UsageError when one cannot be read or holds no certificate."""
    from cryptography.hazmat.primitives.serialization import Encoding

    found = [
        each.public_bytes(Encoding.DER)
        for file in ((certificate, *chain) if certificate else ())
        for each in keys.certificates(keys.read_pem(file), str(file))
    ]
    return SigningKey(pem=keys.read_pem(path), password=password, chain=tuple(found), where=str(path))


def write_new_key(path: Path, password: bytes | None) -> tuple[Path, str]:
    """Make a key pair: `path`, readable by its owner only, and the same with ``.pub``.

    Returns the path of the public key and its fingerprint. Raises OutputError when one of the files exists or cannot
    be written.
    """
    private, public = keys.new_key(password)
    shown = path.with_suffix(".pub")
    for file, mode, content in ((path, 0o600, private), (shown, 0o644, public)):
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
                out.write(content)
        except FileExistsError as error:
            raise OutputError(f"{file} exists; a key is never overwritten.", "Choose another name.") from error
        except OSError as error:
            raise OutputError(f"{file} cannot be written: {error.strerror}.", "Choose another place.") from error
    return shown, keys.fingerprint(keys.public_key(public, str(shown)))


def _whole(package: Path) -> Verified:
    """A package that is as its manifest says, with all its targets."""
    if not package.is_dir():
        raise BadArtifact(f"{package} is not a package: no such directory.", "Give a package directory.")
    whole = check_contents(package, None)
    if missing := sorted(set(whole.manifest["targets"]) - set(whole.targets)):
        raise IntegrityError(
            f"{package} lacks its targets {', '.join(missing)}; only a whole package can be signed.", "Pull all of it."
        )
    return whole


def _check_certificate(signing_key: SigningKey, fingerprint: str) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    certified = x509.load_der_x509_certificate(signing_key.chain[0]).public_key()
    if not isinstance(certified, ec.EllipticCurvePublicKey) or keys.fingerprint(certified) != fingerprint:
        raise UsageError(f"the certificate is not one of {signing_key.where}.", "Give the certificate of this key.")


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error.strerror}.", "Sign a copy in a writable place.") from error
