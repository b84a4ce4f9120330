"""A published package → a directory that holds the targets asked for: verified, whole or absent.

1. the source lists its files; names, sizes and digests are checked (`registry.listing`)
2. ``model.sig`` and ``kobako.json`` come first; the signature is checked before the manifest is parsed
3. what the asked targets and all targets share is chosen; what an older package here has already is taken from it
4. the rest is brought side by side into a workspace beside the destination, which outlives a kill
5. everything is verified once more where it lies, then takes its place in one step
"""

from __future__ import annotations

import glob
import hashlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import BadArtifact, IntegrityError, NotEnoughDisk, NotFound, Untrusted
from .manifest import MANIFEST_FILE, needed_files, read_manifest
from .place import take_place, unwritable_is_an_error
from .registry.listing import Listing, RemoteFile, Source
from .registry.transfer import Meter, Workspace, has_digest, link_or_copy, obtain_all
from .run import Observer
from .signature.trust import Trust
from .verify import SIGNATURE_FILE, Signed, check_contents, signature_of

STAGE = "pull"
MAX_HEAD_BYTES = 8 * 2**20  # of the manifest, and of the signature


@dataclass(frozen=True, kw_only=True)
class PullRequest:
    """What is wanted.

    Attributes:
        targets: the targets that shall be in `out` afterwards, and no others; empty = all.
        out: the package directory, or None for one named like the source, here.
        jobs: how many files are transferred side by side.
        manifest_sha256: the SHA-256 its kobako.json must have, where somebody believed has told it; None = any.
    """

    targets: tuple[str, ...]
    trust: Trust
    out: Path | None = None
    jobs: int = 4
    manifest_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What a pull did. `version`: of the source; `signer`: None when the package is not signed by anybody known."""

    package: Path
    version: str
    signer: str | None
    targets: tuple[str, ...]
    files: int
    transferred_bytes: int
    reused_bytes: int
    unchanged: bool


def pull(source: Source, request: PullRequest, observer: Observer) -> Pulled:
    """Bring a package from `source`.

    Raises NotFound, AccessDenied, NetworkError, IntegrityError, Untrusted, BadArtifact, NotEnoughDisk, OutputError.
    """
    listing = source.listing()
    _require_signature(listing, source.label, request.trust)
    out = (request.out or Path(listing.name)).absolute()
    with alone_at(out):
        pulling = _Pulling(source, listing, request, observer, out, _workspace(out, listing))
        return pulling.run()


def _require_signature(listing: Listing, label: str, trust: Trust) -> None:
    """Refuse an unsigned package before anything of it is transferred."""
    if SIGNATURE_FILE not in listing.files and trust.unsigned != "allow":
        raise Untrusted(
            f"{label} is not signed.",
            "Have it signed (kobako sign) and published again, or use --allow-unsigned if you know its origin.",
        )
    if MANIFEST_FILE not in listing.files:
        raise BadArtifact(f"{label} has no {MANIFEST_FILE}: it is not a kobako package.", "Check the address.")


@contextmanager
def alone_at(out: Path) -> Iterator[None]:
    """Only one pull at a time writes one directory; the next finds it done."""
    from filelock import FileLock

    from .cache import disk_full_is_an_error

    lock = out.parent / f".{out.name}.kobako-lock"
    with unwritable_is_an_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_is_an_error(out.parent), FileLock(lock):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)  # while it is held: filelock sees that, and whoever waits takes a new one


def _workspace(out: Path, listing: Listing) -> Workspace:
    version = hashlib.sha256(listing.version.encode()).hexdigest()[:12]
    return Workspace(out.parent / f".{out.name}.{version}.pull")


@dataclass(frozen=True)
class _Pulling:
    """One pull under way."""

    source: Source
    listing: Listing
    request: PullRequest
    observer: Observer
    out: Path
    workspace: Workspace

    def run(self) -> Pulled:
        self._sweep()
        self.workspace.prepare()
        signed, manifest = self._head()
        self._check_destination(str(manifest["name"]))
        targets = self._targets(manifest)
        wanted = self._wanted(manifest, targets, signed)
        reused = self._reuse(wanted)
        missing = [file for file in wanted if file.path not in reused]
        if not missing and self._nothing_else(wanted):
            shutil.rmtree(self.workspace.home)
            return self._pulled(manifest, targets, signed, wanted, 0, unchanged=True)
        transferred = self._bring(missing)
        self._keep_only(wanted)
        check_contents(self.workspace.tree, signed, targets)
        take_place(self.workspace.tree, self.out)
        shutil.rmtree(self.workspace.home, ignore_errors=True)
        return self._pulled(manifest, targets, signed, wanted, transferred, unchanged=False)

    def _sweep(self) -> None:
        """Remove what pulls of other versions left; nobody else is at work here."""
        for path in self.out.parent.glob(f".{glob.escape(self.out.name)}.*.pull"):
            if path != self.workspace.home and path.name[len(self.out.name) + 2 : -5].isalnum():
                shutil.rmtree(path, ignore_errors=True)

    def _head(self) -> tuple[Signed | None, Mapping[str, Any]]:
        """Signature and manifest, in this order: nothing is parsed that was not vouched for."""
        present = [name for name in (SIGNATURE_FILE, MANIFEST_FILE) if name in self.listing.files]
        head = [self.listing.files[name] for name in present]
        for file in head:
            if file.size_bytes > MAX_HEAD_BYTES:
                raise BadArtifact(f"{file.path} of {self.source.label} is too large.", "Do not use this source.")
        missing = [file for file in head if not has_digest(self.workspace.tree / file.path, file)]
        fresh = [file for file in missing if not self._take(file)]
        obtain_all(self.source, fresh, self.workspace, Meter(lambda _: None), 1)
        if SIGNATURE_FILE not in present:
            (self.workspace.tree / SIGNATURE_FILE).unlink(missing_ok=True)
        signed = signature_of(self.workspace.tree, self.request.trust)
        if signed is not None and not self._is_manifest(signed.digests.get(MANIFEST_FILE, "")):
            raise IntegrityError(
                f"{MANIFEST_FILE} of {self.source.label} is not the one that was signed.", "Do not use it."
            )
        if self.request.manifest_sha256 is not None and not self._is_manifest(self.request.manifest_sha256):
            raise IntegrityError(
                f"{self.source.label} is not the package that was promised: its {MANIFEST_FILE} is another.",
                "It was changed since. Have what names it made again, or pull an older version.",
            )
        manifest = read_manifest(self.workspace.tree)
        if signed is not None:
            signed.check_package(str(manifest["name"]))
        return signed, manifest

    def _is_manifest(self, digest: str) -> bool:
        described = replace(self.listing.files[MANIFEST_FILE], sha256=digest)
        return has_digest(self.workspace.tree / MANIFEST_FILE, described)

    def _take(self, file: RemoteFile) -> bool:
        """Take a file from the package that stands at the destination, when it is the very same."""
        if not has_digest(self.out / file.path, file):
            return False
        link_or_copy(self.out / file.path, self.workspace.tree / file.path)
        return True

    def _check_destination(self, name: str) -> None:
        from .package import check_destination

        check_destination(self.out, name)

    def _targets(self, manifest: Mapping[str, Any]) -> tuple[str, ...]:
        for name in self.request.targets:
            if name not in manifest["targets"]:
                raise NotFound(
                    f"{self.source.label} has no target {name!r}.", f"It has: {', '.join(manifest['targets'])}."
                )
        return self.request.targets or tuple(manifest["targets"])

    def _wanted(self, manifest: Mapping[str, Any], targets: tuple[str, ...], signed: Signed | None) -> list[RemoteFile]:
        """Files of the asked targets and those that all share, where manifest, listing and signature agree."""
        wanted = [self.listing.files[name] for name in (SIGNATURE_FILE, MANIFEST_FILE) if name in self.listing.files]
        return wanted + [self._agreed(entry, signed) for entry in needed_files(manifest, targets)]

    def _agreed(self, entry: Mapping[str, Any], signed: Signed | None) -> RemoteFile:
        told = self.listing.files.get(str(entry["path"]))
        described = RemoteFile(path=str(entry["path"]), size_bytes=entry["size_bytes"], sha256=entry["sha256"])
        if told is None or told.size_bytes != described.size_bytes or told.sha256 not in (None, described.sha256):
            raise IntegrityError(
                f"{self.source.label} offers another {entry['path']} than its manifest lists.", "Publish it again."
            )
        if signed is not None and signed.digests.get(described.path) != described.sha256:
            raise IntegrityError(
                f"{entry['path']} of {self.source.label} is not the one that was signed.", "Refuse it."
            )
        return described

    def _reuse(self, wanted: list[RemoteFile]) -> set[str]:
        """Paths that need no transfer: whole in the workspace, or the same in the package that stands here."""
        return {file.path for file in wanted if has_digest(self.workspace.tree / file.path, file) or self._take(file)}

    def _nothing_else(self, wanted: list[RemoteFile]) -> bool:
        """Whether the destination holds exactly the wanted files already."""
        if not self.out.is_dir():
            return False
        there = {path.relative_to(self.out).as_posix() for path in self.out.rglob("*") if not path.is_dir()}
        return there == {file.path for file in wanted} and all(has_digest(self.out / f.path, f) for f in wanted)

    def _bring(self, missing: list[RemoteFile]) -> int:
        total = sum(file.size_bytes for file in missing)
        waiting = sum(self.workspace.waiting_bytes(file) for file in missing)
        free = shutil.disk_usage(self.workspace.home).free
        if total - waiting > free:
            raise NotEnoughDisk(
                f"{self.out.parent} has {free / 1e6:,.0f} MB free, and {(total - waiting) / 1e6:,.0f} MB are to come.",
                "Free some space, or choose another --out.",
            )
        self.observer.started(STAGE)

        def moved(arrived: int) -> None:
            done = min((waiting + arrived) / max(total, 1), 1.0)
            self.observer.progress(STAGE, done, f"{(waiting + arrived) / 1e6:,.1f} of {total / 1e6:,.1f} MB")

        meter = Meter(moved)
        obtain_all(self.source, missing, self.workspace, meter, self.request.jobs)
        return meter.arrived_bytes

    def _keep_only(self, wanted: list[RemoteFile]) -> None:
        """Remove from the tree what an earlier pull of other targets left there."""
        names = {file.path for file in wanted}
        for path in sorted(self.workspace.tree.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(self.workspace.tree).as_posix() not in names:
                path.unlink()

    def _pulled(
        self, manifest: Mapping[str, Any], targets: tuple[str, ...], signed: Signed | None,
        wanted: list[RemoteFile], transferred: int, *, unchanged: bool,
    ) -> Pulled:  # fmt: skip
        return Pulled(
            package=self.out,
            version=self.listing.version,
            signer=signed.signer.name if signed else None,
            targets=tuple(name for name in manifest["targets"] if name in targets),
            files=len(wanted),
            transferred_bytes=transferred,
            reused_bytes=sum(file.size_bytes for file in wanted) - transferred,
            unchanged=unchanged,
        )
