"""A package on this machine → a place others pull it from: checked, complete or not at all, only what is new.

A package is verified as a stranger would verify it before anything is sent: nothing damaged, and nothing unsigned
(unless that is asked for), ever leaves by this door.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import IntegrityError, Untrusted
from .manifest import MANIFEST_FILE
from .registry.listing import Destination, Listing, Published, RemoteFile, make_listing, version_of
from .registry.transfer import Meter
from .run import Observer
from .signature.trust import Trust
from .verify import SIGNATURE_FILE, Verified, verify

STAGE = "publish"


@dataclass(frozen=True, kw_only=True)
class PublishRequest:
    """What to publish. `trust`: whom the package's signature must be by."""

    package: Path
    trust: Trust


def publish(request: PublishRequest, destination: Destination, observer: Observer) -> Published:
    """Verify a package and make it available at `destination`.

    Raises Untrusted, IntegrityError, BadArtifact, AccessDenied, NetworkError, NotEnoughDisk, OutputError.
    """
    verified = verify(request.package, request.trust)
    if missing := sorted(set(verified.manifest["targets"]) - set(verified.targets)):
        raise IntegrityError(
            f"{request.package} lacks its targets {', '.join(missing)}; only a whole package can be published.",
            "Pull or build all of it.",
        )
    listing = listing_of(request.package, verified)
    if SIGNATURE_FILE not in listing.files and request.trust.unsigned != "allow":
        raise Untrusted(f"{request.package} is not signed.", "Sign it (kobako sign), or use --allow-unsigned.")
    return send(request.package, listing, destination, observer)


def send(directory: Path, listing: Listing, destination: Destination, observer: Observer) -> Published:
    """Make the verified files of `directory` available; the observer is told how much is done."""
    total = max(sum(file.size_bytes for file in listing.files.values()), 1)
    observer.started(STAGE)

    def moved(done: int) -> None:
        observer.progress(STAGE, min(done / total, 1.0), f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB")

    return destination.publish(directory, listing, Meter(moved).tell)


def listing_of(package: Path, verified: Verified) -> Listing:
    """Every file of a verified package, the signature included, with size, digest and target."""
    from .manifest import sha256_of

    owner = {
        str(file["path"]): str(name) for name, entry in verified.manifest["targets"].items() for file in entry["files"]
    }
    digests = dict(verified.files)
    if (package / SIGNATURE_FILE).is_file():
        digests[SIGNATURE_FILE] = sha256_of(package / SIGNATURE_FILE)
    files = [
        RemoteFile(path=path, size_bytes=(package / path).stat().st_size, sha256=digest, target=owner.get(path))
        for path, digest in sorted(digests.items())
    ]
    return make_listing(str(verified.manifest["name"]), version_of(files), files, f"{package}/{MANIFEST_FILE}")
