"""A package → what is vouched for: the signature first, then digests, and only then the manifest.

The order is the point. Nothing of a package is parsed before the signature over its bytes has been checked:

    1. ``model.sig`` is read (bounded), and its signature checked with a believed key: `open_signature`, free of I/O;
    2. every file is compared with its signed SHA-256; links, devices and files that were not signed are refused;
    3. ``kobako.json``, now known to be the signer's, is parsed; it must list the same files with the same digests.

A package pulled for some of its targets lacks the folders of the others, and a table that only they read. That is
accepted when every missing file belongs to a target whose whole folder is absent; anything else that is missing is a
damage.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contents import compare, digests_of_manifest, files_in, refuse_strangers
from .errors import BadArtifact, IntegrityError, NotFound, Untrusted
from .manifest import MANIFEST_FILE, all_files, needed_files, read_manifest
from .signature import keys
from .signature.bundle import MAX_SIGNATURE_BYTES, SIGNATURE_FILE, Bundle, parse_bundle, signed_bytes
from .signature.statement import parse_statement
from .signature.trust import Believed, Trust

__all__ = ["SIGNATURE_FILE", "Signed", "Signer", "Trust", "Verified", "open_signature", "verify"]


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Who signed: the name in the trust file (or in the certificate), and the fingerprint of the key.

    Attributes:
        fingerprint: empty for a keyless signature.
        issuer: who knows the identity behind a keyless signature; empty for others.
    """

    name: str
    fingerprint: str
    issuer: str = ""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What a checked signature vouches for: SHA-256 in hex of every file of the full package, by path."""

    digests: Mapping[str, str]
    signer: Signer
    believed: Believed

    def check_package(self, name: str) -> None:
        """Raise Untrusted when the signer may not sign a package of that name."""
        self.believed.check_package(name)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A package that may be used.

    Attributes:
        manifest: ``kobako.json``, checked against the schema.
        signer: None when nobody known signed and the Trust allows that.
        targets: those whose files are all here.
        files: SHA-256 in hex of every file that is here, by path, the signature left out.
    """

    package: Path
    manifest: Mapping[str, Any]
    signer: Signer | None
    targets: tuple[str, ...]
    files: Mapping[str, str]


class _NobodyKnown(Untrusted):
    """Signed, but by a key that the Trust does not know; tolerated when it allows unsigned packages."""


def open_signature(data: bytes, trust: Trust, today: datetime.date | None = None) -> Signed:
    """Check the bytes of ``model.sig`` and return what they vouch for. Reads no file: a download begins with this.

    A keyless signature by somebody believed is checked by another program (`signature.keyless`), which asks Sigstore.
    `today` is the date for keys with an end; by default this machine's. Whether the signer may sign a package of this
    name is asked with `Signed.check_package` once the name is known; `verify` does.

    Raises Untrusted: damaged, of another kind, signed by nobody known, or by a revoked or ended key. For keyless ones
    MissingDependency without ``model_signing``, and NetworkError without Sigstore's services.
    """
    bundle = parse_bundle(data)
    payload = bundle.payload
    if bundle.keyless:
        believed, signer, payload = _identified(data, bundle, trust)
    else:
        believed, signer = _signer(bundle, trust)
    believed.check_day(today or datetime.datetime.now(datetime.UTC).date())
    return Signed(digests=parse_statement(payload).digests, signer=signer, believed=believed)


def _identified(data: bytes, bundle: Bundle, trust: Trust) -> tuple[Believed, Signer, bytes]:
    """Who signed without a key, and what, as Sigstore's client read it."""
    from .signature import keyless

    claimed = keyless.identity_of(bundle.certificates[0])
    for believed in trust.identities:
        if (believed.identity, believed.issuer) == (claimed.name, claimed.issuer):
            payload = keyless.checked_payload(data, claimed)
            return believed, Signer(name=believed.name, fingerprint="", issuer=believed.issuer), payload
    raise _NobodyKnown(
        f"it is signed without a key, by {claimed}, whom {trust.origin} does not know.",
        "If you know that signer, give --identity and --issuer, or add it to the trust file (docs/trust.md).",
    )


def _signer(bundle: Bundle, trust: Trust) -> tuple[Believed, Signer]:
    """Who signed the bundle's payload, once the signature holds."""
    data = signed_bytes(bundle.payload)
    if bundle.certificates:
        return _certified_signer(bundle, trust, data)
    for believed in trust.keys:
        if believed.fingerprint == bundle.key_hint:
            key = keys.public_key(believed.pem, believed.name)
            if not keys.signature_holds(key, bundle.signature, data):
                raise Untrusted(
                    f"{SIGNATURE_FILE} names the key {believed.name}, but was not made with it, or was changed since.",
                    "Do not use the package; pull it again from a place you know.",
                )
            return believed, Signer(name=believed.name, fingerprint=believed.fingerprint)
    raise _NobodyKnown(
        f"it is signed with the key {bundle.key_hint[:16] or '(unnamed)'}…, which {trust.origin} does not know.",
        "If you know that key, give it with --key, or add it to the trust file (docs/trust.md).",
    )


def _certified_signer(bundle: Bundle, trust: Trust, data: bytes) -> tuple[Believed, Signer]:
    refusals = []
    for authority in trust.authorities:
        try:
            key, name = keys.certified_key(bundle.certificates, keys.certificates(authority.pem, authority.name))
        except Untrusted as error:
            refusals.append(error.what)
            continue
        if not keys.signature_holds(key, bundle.signature, data):
            raise Untrusted(f"{SIGNATURE_FILE} was not made with the certificate it carries, or was changed since.")
        return authority, Signer(name=name, fingerprint=keys.fingerprint(key))
    raise _NobodyKnown(
        f"it is signed with a certificate that {trust.origin} does not vouch for. {' '.join(refusals)}".strip(),
        "If you know its authority, add it to the trust file (docs/trust.md).",
    )


def verify(package: Path, trust: Trust, targets: Sequence[str] | None = None) -> Verified:
    """Check that a package directory is what somebody believed has signed.

    Args:
        targets: those that must be here; the others may be absent as whole folders. None: as many as there are.

    Raises Untrusted when it is unsigned (unless the Trust allows that) or signed by nobody believed, IntegrityError
    when a file was changed, is missing or was added, BadArtifact when it is no package, NotFound for a target it does
    not have.
    """
    package = package.resolve()  # the directory itself may be reached through a link; nothing inside may be one
    if not package.is_dir():
        raise BadArtifact(f"{package} is not a package: no such directory.", "Give a package directory.")
    return check_contents(package, _signed(package, trust), targets)


def check_contents(package: Path, signed: Signed | None, targets: Sequence[str] | None = None) -> Verified:
    """`verify` once the signature is known; without one, the package is held against its own manifest only."""
    present = files_in(package)
    digests: Mapping[str, str]
    if signed is None:
        digests = digests_of_manifest(package)
    else:
        digests = signed.digests
        if MANIFEST_FILE not in digests:
            raise BadArtifact(f"what is signed in {package} is not a kobako package.", "Verify it with model_signing.")
        compare(
            package, {MANIFEST_FILE: digests[MANIFEST_FILE]}
        )  # before it is parsed to tell which folders are targets
    refuse_strangers(package, present, digests)
    here = {name: digest for name, digest in digests.items() if name in present}
    compare(package, here)
    manifest = read_manifest(package)
    if signed is not None:
        signed.check_package(str(manifest["name"]))
    _same_list(package, manifest, digests)
    found = _targets_here(package, manifest, set(digests) - set(here))
    for target in targets or ():
        if target not in manifest["targets"]:
            raise NotFound(f"{package} has no target {target!r}.", f"It has: {', '.join(manifest['targets'])}.")
        if target not in found:
            raise IntegrityError(f"the files of {target} are missing from {package}.", "Pull the package with it.")
    return Verified(
        package=package, manifest=manifest, signer=signed.signer if signed else None, targets=found, files=here
    )


def _signed(package: Path, trust: Trust) -> Signed | None:
    """What the package's signature vouches for; None when the Trust does without one."""
    try:
        return open_signature(_signature_bytes(package), trust)
    except _NobodyKnown as error:
        if trust.unsigned == "allow":
            return None
        raise Untrusted(error.what, error.next_step) from error


def _signature_bytes(package: Path) -> bytes:
    path = package / SIGNATURE_FILE
    try:
        if not os.path.lexists(path):
            raise _NobodyKnown(
                f"{package} is not signed.",
                "Have it signed (kobako sign), or use --allow-unsigned if you know where it comes from.",
            )
        if path.is_symlink() or not path.is_file():
            raise Untrusted(f"{path} is not a plain file.", "Do not use the package.")
        with path.open("rb") as file:
            return file.read(MAX_SIGNATURE_BYTES + 1)
    except OSError as error:
        raise Untrusted(f"{path} cannot be read: {error.strerror}.", "Pull the package again.") from error


def _same_list(package: Path, manifest: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """The manifest must list what was signed: what it says of a file is then said of the right one."""
    listed = {str(entry["path"]): str(entry["sha256"]) for entry in all_files(manifest)}
    expected = {name: digest for name, digest in digests.items() if name != MANIFEST_FILE}
    if listed != expected:
        names = sorted(name for name in listed.keys() | expected.keys() if listed.get(name) != expected.get(name))
        raise IntegrityError(
            f"the manifest and the signature of {package} differ about {', '.join(map(repr, names[:5]))}.",
            "Do not use the package; build and sign it again.",
        )


def _targets_here(package: Path, manifest: Mapping[str, Any], missing: set[str]) -> tuple[str, ...]:
    """The targets whose files are here. Raises IntegrityError unless what is missing are whole folders of others."""
    here = []
    for target, entry in manifest["targets"].items():
        files = {str(file["path"]) for file in entry["files"]}
        if files <= missing:
            missing = missing - files
        else:
            here.append(str(target))
    missing -= {str(file["path"]) for file in all_files(manifest)} - {
        str(file["path"]) for file in needed_files(manifest, here)
    }
    if missing:
        raise IntegrityError(
            f"{sorted(missing)[0]} is missing from {package}"
            + (f", and {len(missing) - 1} files more." if len(missing) > 1 else "."),
            "Pull or build the package again.",
        )
    if not here:
        raise IntegrityError(f"{package} holds no target at all.", "Pull the package again.")
    return tuple(here)


def signature_of(package: Path, trust: Trust) -> Signed | None:
    """What the signature of a package vouches for, before its files are all here; None when the Trust does without one.

    A download begins with this: it reads ``model.sig`` and nothing else. Raises Untrusted.
    """
    return _signed(package, trust)
