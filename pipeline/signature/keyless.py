"""Keyless signatures: Sigstore's services, through the environment of PyPI's ``model-signing``, to be installed apart.

Its command signs; its environment's Python checks, by Sigstore's own client: signature, certificate, and the entry in
the public log. What was signed is then compared by kobako as with any other signature, so that a package of which only
some targets were pulled verifies, too. Signing was never run to its end: Sigstore's services cannot be reached from
where kobako is built.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDependency, NetworkError, OutputError, Untrusted
from ..names import printable
from .bundle import PAYLOAD_TYPE, SIGNATURE_FILE

if TYPE_CHECKING:
    from cryptography import x509

COMMAND = "model_signing"
TIMEOUT_S = 900
UNREACHABLE = "Failed to refresh TUF metadata"
"""What sigstore-python says when it cannot fetch the keys of Sigstore's services."""
INSTALL = (
    "Install it apart from kobako, whose vendors' pins exclude it: pipx install --preinstall pyopenssl model-signing"
)
# Fulcio's extensions for the issuer: a DER string, and bare text as it once was (sigstore/fulcio, docs/oid-info.md)
ISSUER, OLD_ISSUER = "1.3.6.1.4.1.57264.1.8", "1.3.6.1.4.1.57264.1.1"
REFUSED = 20
CHECK = f"""
import sys
from sigstore.errors import VerificationError
from sigstore.models import Bundle, InvalidBundle
from sigstore.verify import Verifier, policy
path, identity, issuer, offline = sys.argv[1:]
verifier = Verifier.production(offline=bool(offline))
try:
    with open(path, encoding="utf-8") as file:
        bundle = Bundle.from_json(file.read())
    kind, payload = verifier.verify_dsse(bundle, policy.Identity(identity=identity, issuer=issuer))
    if kind != {PAYLOAD_TYPE!r}:
        raise VerificationError("what was signed is not an in-toto statement")
except (VerificationError, InvalidBundle) as error:
    print(error, file=sys.stderr)
    sys.exit({REFUSED})
sys.stdout.buffer.write(payload)
"""
"""Checks a bundle in the tool's environment, and writes what was signed to standard output."""


@dataclass(frozen=True)
class Identity:
    """Who signs: an address, or the URL of a CI's workflow; as an OpenID issuer knows it."""

    name: str
    issuer: str

    def __str__(self) -> str:
        return printable(f"{self.name} (known by {self.issuer})")


def sign_keyless(package: Path, ignored: tuple[str, ...]) -> None:
    """Sign with the identity of the CI job that runs (its OIDC token). Raises MissingDependency, NetworkError."""
    signature = package / SIGNATURE_FILE
    command = [_command(), "sign", "sigstore", str(package), "--signature", str(signature), "--use_ambient_credentials"]
    command += [part for name in ignored for part in ("--ignore-paths", str(package / name))]
    done = _asked(command)
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        _raise_if_unreachable(said)
        raise NetworkError(
            f"{COMMAND} could not sign {package}: {_last_line(said)}.",
            "In GitHub Actions the job needs `permissions: id-token: write`.",
        )


def identity_of(certificate: bytes) -> Identity:
    """Whom a certificate (DER) names: a claim, until `checked_payload` has checked it. Raises Untrusted for none."""
    from cryptography import x509

    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        kinds = (x509.UniformResourceIdentifier, x509.RFC822Name)
        (name,) = (name for kind in kinds for name in names.get_values_for_type(kind))
        return Identity(str(name), _issuer(extensions))
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
            x509.InvalidVersion) as error:  # fmt: skip
        raise Untrusted(
            f"the certificate in {SIGNATURE_FILE} names no signer: {error}.", "Do not use the package."
        ) from error


def _issuer(extensions: x509.Extensions) -> str:
    from cryptography import x509

    for extension in extensions:
        if extension.oid.dotted_string in (ISSUER, OLD_ISSUER) and isinstance(
            extension.value, x509.UnrecognizedExtension
        ):
            value = extension.value.value
            # DER: a UTF8String of fewer than 128 bytes
            is_short_string = len(value) > 1 and value[0] == 0x0C and value[1] == len(value) - 2
            return (value[2:] if is_short_string else value).decode()
    raise ValueError("it names no issuer")


def checked_payload(data: bytes, identity: Identity, *, offline: bool = False) -> bytes:
    """What `identity` signed, by the bytes of ``model.sig``.

    Args:
        offline: believe the keys of Sigstore's services that the tool has, instead of fetching what they are now.

    Raises Untrusted when it did not, MissingDependency without the tool, NetworkError when it cannot be told because
    Sigstore's keys cannot be fetched, OutputError when it cannot be run here.
    """
    python = Path(_command()).resolve().with_name("python3")
    if not python.exists():
        raise MissingDependency(f"{COMMAND} is not in an environment of its own: there is no {python}.", INSTALL)
    try:
        with tempfile.TemporaryDirectory(prefix="kobako-keyless-") as scratch:
            copy = Path(scratch) / SIGNATURE_FILE
            copy.write_bytes(data)
            asked = [str(copy), identity.name, identity.issuer, "yes" if offline else ""]
            done = _asked([str(python), "-I", "-c", CHECK, *asked])
    except OSError as error:  # of this machine: it says nothing about the package
        raise OutputError(f"{COMMAND} cannot be run: {error}.", "Free some space, or set TMPDIR.") from error
    said = done.stderr.decode(errors="replace")
    if done.returncode == REFUSED:
        raise Untrusted(f"{SIGNATURE_FILE} is not by {identity}: {_last_line(said)}.", "Do not use the package.")
    if done.returncode:
        _raise_if_unreachable(said)
        raise MissingDependency(f"{COMMAND} cannot check signatures: {_last_line(said)}.", INSTALL)
    return done.stdout


def _asked(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    """What the command says. Raises NetworkError when it says nothing for a quarter of an hour: no verdict."""
    try:
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NetworkError(
            f"{COMMAND} did not finish within {TIMEOUT_S} s.", "Sigstore's services may be down: try again later."
        ) from error


def _raise_if_unreachable(said: str) -> None:
    """Tell "cannot be asked" from "said no": the command's exit status is the same for both."""
    if UNREACHABLE in said:
        raise NetworkError("Sigstore's services cannot be reached, which keyless signatures need.", "Try again later.")


def _command() -> str:
    found = shutil.which(COMMAND)
    if not found:
        raise MissingDependency(f"keyless signatures need the command {COMMAND}, which is not on the PATH.", INSTALL)
    return found


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return printable(lines[-1])[:300].rstrip(".") if lines else "it said nothing"
