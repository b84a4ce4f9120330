"""A set to a place others pull it from, and from there into a directory: every member, or nothing that can be seen.

Members inside the set travel with it; those with an address of their own are pulled from there. Either way each is
pulled by `kobako.pipeline.pull`, told which kobako.json it must find, into a workspace that takes its place at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..contents import files_in
from ..errors import BadArtifact, IntegrityError, OutputError, Untrusted
from ..manifest import MANIFEST_FILE, SET_FILE, sha256_of
from ..place import take_place
from ..publish import PublishRequest, listing_of, publish, send
from ..pull import MAX_HEAD_BYTES, Pulled, PullRequest, alone_at, pull
from ..registry.listing import Destination, Listing, Published, RemoteFile, Source, Tell, make_listing, version_of
from ..registry.transfer import Meter, Workspace, has_digest, link_or_copy, obtain_all
from ..run import Observer
from ..signature.bundle import SIGNATURE_FILE
from ..verify import Signed, signature_of
from .check import check_names_allowed, check_set, check_signed_table, verify_set
from .table import Member, PackageSet, is_set, read_set

Opened = Callable[[str], Source]
"""The source at an address."""


@dataclass(frozen=True, kw_only=True)
class PulledSet:
    """What pulling a set did. `signer`: None when the set is not signed by anybody known."""

    directory: Path
    version: str
    signer: str | None
    members: tuple[Pulled, ...]
    transferred_bytes: int
    unchanged: bool


@dataclass(frozen=True)
class Below:
    """What a source offers below one of its folders, as a source of its own; ``""`` is the source with its listing."""

    source: Source
    whole: Listing
    prefix: str

    @property
    def label(self) -> str:
        return f"{self.source.label}/{self.prefix}".rstrip("/")

    def listing(self) -> Listing:
        start = len(self.prefix)
        files = {
            path[start:]: replace(file, path=path[start:])
            for path, file in self.whole.files.items()
            if path.startswith(self.prefix)
        }
        return replace(self.whole, files=files)

    def bring(self, file: RemoteFile, partial: Path, tell: Tell) -> None:
        self.source.bring(replace(file, path=self.prefix + file.path), partial, tell)

    def close(self) -> None:
        """The source is closed by whoever opened it."""


def publish_any(request: PublishRequest, destination: Destination, observer: Observer) -> Published:
    """Publish a package, or a set with the members inside it. Raises as `publish` does."""
    if not is_set(request.package):
        return publish(request, destination, observer)
    verified = verify_set(request.package, request.trust)
    home = verified.directory
    own = [name for name in (SET_FILE, SIGNATURE_FILE) if (home / name).is_file()]
    files = [
        RemoteFile(path=name, size_bytes=(home / name).stat().st_size, sha256=sha256_of(home / name)) for name in own
    ]
    for member in verified.package_set.members:
        if member.inside:
            found = listing_of(home / member.folder, verified.members[member.name])
            files += [replace(file, path=f"{member.folder}/{file.path}") for file in found.files.values()]
    for name, one in verified.members.items():
        if missing := sorted(set(one.manifest["targets"]) - set(one.targets)):
            raise IntegrityError(
                f"the member {name} lacks its targets {', '.join(missing)}; only a whole set can be published.",
                "Pull or build all of it.",
            )
    listing = make_listing(verified.package_set.name, version_of(files), files, str(home / SET_FILE))
    return send(home, listing, destination, observer)


def pull_any(source: Source, request: PullRequest, observer: Observer, opened: Opened) -> Pulled | PulledSet:
    """Bring what lies at `source`: a package, or a set with all its members.

    Args:
        opened: the source at the address of a member that has one of its own.

    Raises as `pull` does.
    """
    listing = source.listing()
    if SET_FILE not in listing.files:
        return pull(Below(source, listing, ""), request, observer)
    if SIGNATURE_FILE not in listing.files and request.trust.unsigned != "allow":
        raise Untrusted(
            f"{source.label} is not signed.",
            "Have it signed (kobako sign) and published again, or use --allow-unsigned if you know its origin.",
        )
    out = (request.out or Path(listing.name)).absolute()
    with alone_at(out):
        return _Pulling(source, listing, replace(request, out=out), observer, opened, out).run()


@dataclass(frozen=True)
class _Pulling:
    """One pull of a set under way."""

    source: Source
    listing: Listing
    request: PullRequest
    observer: Observer
    opened: Opened
    out: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.out.parent / f".{self.out.name}.set.pull")

    def run(self) -> PulledSet:
        self.workspace.prepare()
        signed, made = self._head()
        self._check_destination(made.name)
        pulled = tuple(self._member(member) for member in made.members)
        self._keep_only(made)
        check_set(self.workspace.tree, signed, self.request.trust, self.request.targets)
        unchanged = self._stands(pulled)
        if not unchanged:
            take_place(self.workspace.tree, self.out)
        shutil.rmtree(self.workspace.home, ignore_errors=True)
        return PulledSet(
            directory=self.out,
            version=self.listing.version,
            signer=signed.signer.name if signed else None,
            members=tuple(
                replace(one, package=self.out / member.folder) for one, member in zip(pulled, made.members, strict=True)
            ),
            transferred_bytes=sum(one.transferred_bytes for one in pulled),
            unchanged=unchanged,
        )

    def _head(self) -> tuple[Signed | None, PackageSet]:
        """Signature and table, in this order: nothing is parsed that was not vouched for."""
        tree = self.workspace.tree
        for name in (SIGNATURE_FILE, SET_FILE):
            if (file := self.listing.files.get(name)) is None:
                (tree / name).unlink(missing_ok=True)
                continue
            if file.size_bytes > MAX_HEAD_BYTES:
                raise BadArtifact(f"{name} of {self.source.label} is too large.", "Do not use this source.")
            if has_digest(self.out / name, file):
                link_or_copy(self.out / name, tree / name)
            elif not has_digest(tree / name, file):
                obtain_all(self.source, [file], self.workspace, Meter(lambda _: None), 1)
        signed = signature_of(tree, self.request.trust)
        if signed is not None:
            check_signed_table(tree, signed)
        made = read_set(tree)
        if signed is not None:
            check_names_allowed(made, signed)
        return signed, made

    def _check_destination(self, name: str) -> None:
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return
        found = read_set(self.out).name if is_set(self.out) else None
        if found != name:
            what = f"holds another set, {found}" if found else "exists and is not a package set"
            raise OutputError(f"{self.out} {what}.", "Choose another --out, or remove it.")

    def _member(self, member: Member) -> Pulled:
        there = self.workspace.tree / member.folder
        self._seed(member, there)
        request = replace(
            self.request,
            out=there,
            # the set's signer vouches, by the digest
            trust=replace(self.request.trust, unsigned="allow", identities=()),
            manifest_sha256=member.manifest_sha256,
        )
        if member.inside:
            return self._pull(Below(self.source, self.listing, f"{member.folder}/"), member, request)
        with closing(self.opened(member.where)) as source:
            return self._pull(Below(source, source.listing(), ""), member, request)

    def _pull(self, source: Below, member: Member, request: PullRequest) -> Pulled:
        files = source.listing().files
        if SET_FILE in files:
            raise BadArtifact(
                f"the member {member.name} is a set itself: {source.label}.", "A set holds packages only."
            )
        if MANIFEST_FILE not in files:
            raise IntegrityError(f"the member {member.name} is missing: {source.label}.", "Publish the set again.")
        return pull(source, request, self.observer)

    def _seed(self, member: Member, there: Path) -> None:
        """Begin with what an older version of the set has of a member: whatever is the same needs no transfer."""
        older = self.out / member.folder
        if there.exists() or not is_set(self.out) or not older.is_dir():
            return
        with suppress(IntegrityError):  # a link stands there: then nothing is taken
            for path in files_in(older):
                link_or_copy(older / path, there / path)

    def _keep_only(self, made: PackageSet) -> None:
        """Remove from the tree what an earlier pull of another version left there."""
        folders = tuple(f"{member.folder}/" for member in made.members)
        tree = self.workspace.tree
        for path in sorted(tree.rglob("*"), reverse=True):
            name = path.relative_to(tree).as_posix()
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif name not in (SET_FILE, SIGNATURE_FILE) and not name.startswith(folders):
                path.unlink()

    def _stands(self, pulled: tuple[Pulled, ...]) -> bool:
        """Whether the destination holds exactly this already."""
        if not self.out.is_dir() or not all(one.unchanged for one in pulled):
            return False
        here, there = files_in(self.workspace.tree), files_in(self.out)
        return here == there and all(
            sha256_of(self.out / name) == sha256_of(self.workspace.tree / name) for name in here
        )
