"""A package in a plain directory, which any static web server or CDN can serve.

    PLACE/index.json          every version's files with size and digest, and which version is the newest
    PLACE/VERSION/kobako.json, PLACE/VERSION/litert/model.tflite, …   the package, file by file, as it lies on a phone

A version's name is a digest over its files, so a version never changes: caches may keep it for ever, and a pull that
began before a new version was published still gets what it began with. Files that a version shares with an older one
are hard links.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..codec import write_json
from ..errors import BadArtifact, NotFound, OutputError
from ..place import unwritable_is_an_error
from . import transport
from .addresses import VERSION, Address
from .listing import Listing, Published, RemoteFile, Tell, make_listing

INDEX_FILE = "index.json"
INDEX_FORMAT = "1.0"
MAX_INDEX_BYTES = 16 * 2**20
LOCK_FILE = ".kobako.lock"


class DirectorySource:
    """A directory on this machine."""

    def __init__(self, address: Address) -> None:
        self._root = Path(address.place).expanduser()
        self._wanted = address.revision
        self._version = ""
        self.label = str(address)

    def listing(self) -> Listing:
        path = self._root / INDEX_FILE
        try:
            if path.stat().st_size > MAX_INDEX_BYTES:
                raise BadArtifact(f"{path} is larger than any index.", "This is not a kobako source.")
            body = path.read_bytes()
        except OSError as error:
            raise _no_index(self.label, self._root) from error
        found = listing_of(transport.parse_json(body, str(path)), self._wanted, self.label)
        self._version = found.version
        return found

    def bring(self, file: RemoteFile, partial: Path, tell: Tell) -> None:
        origin = self._root / self._version / file.path
        transport.discard(partial)
        try:
            opened = origin.open("rb")
        except OSError as error:
            raise NotFound(f"{origin} cannot be read: {error.strerror}.", "Publish the package again.") from error
        with opened as source, partial.open("wb") as out:
            left = file.size_bytes + 1  # one more than promised: enough to see that there is more
            while left and (chunk := source.read(min(transport.CHUNK_BYTES, left))):
                out.write(chunk)
                left -= len(chunk)
                tell(len(chunk))

    def close(self) -> None:
        """Nothing to release."""


class WebSource:
    """The same directory behind a web server."""

    def __init__(self, address: Address) -> None:
        self._root = self.label = str(address)
        self._wanted = address.revision
        self._version = ""
        self._client = transport.new_client(transport.web_login(address.place))

    def listing(self) -> Listing:
        def ask() -> bytes:
            with self._client.stream("GET", f"{self._root}/{INDEX_FILE}") as response:
                transport.check_status(response, self.label, INDEX_FILE)
                return transport.read_bounded(response, MAX_INDEX_BYTES, f"{self.label}/{INDEX_FILE}")

        body = transport.retried(ask, self.label)
        found = listing_of(transport.parse_json(body, f"{self.label}/{INDEX_FILE}"), self._wanted, self.label)
        self._version = found.version
        return found

    def bring(self, file: RemoteFile, partial: Path, tell: Tell) -> None:
        url = f"{self._root}/{self._version}/{quote(file.path)}"
        transport.download(self._client, transport.Place(url, {}), file, partial, tell)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _no_index(label: str, root: Path) -> NotFound:
    if (root / "kobako.json").is_file():
        return NotFound(
            f"{label} is a package itself, not a place where packages were published.",
            "It is here already; `kobako publish` makes it a source for others.",
        )
    return NotFound(f"{label} has no {INDEX_FILE}.", "Was a package published there?")


def listing_of(index: Any, wanted: str | None, label: str) -> Listing:
    """The listing of one version in an index: the newest, or the one wanted. Raises BadArtifact, NotFound."""
    where = f"{label}/{INDEX_FILE}"
    if not isinstance(index, dict) or not isinstance(index.get("versions"), dict):
        raise BadArtifact(f"{where} is not an index of packages.", "This is not a kobako source.")
    if str(index.get("format_version", "")).partition(".")[0] != INDEX_FORMAT.partition(".")[0]:
        raise BadArtifact(f"{where} has a format this kobako does not read.", "Upgrade kobako.")
    version, name = wanted or index.get("latest"), index.get("name")
    if not isinstance(name, str) or not isinstance(version, str) or not VERSION.fullmatch(version):
        raise BadArtifact(f"{where} names no package or no newest version.", "Publish the package again.")
    if version not in index["versions"]:
        raise NotFound(f"{label} has no version {version}.", f"It has: {', '.join(list(index['versions'])[-5:])}.")
    return make_listing(name, version, _files_of(index["versions"][version], where), where)


def _files_of(entry: Any, where: str) -> list[RemoteFile]:
    files = entry.get("files") if isinstance(entry, dict) else None
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise BadArtifact(f"{where} lists no files.", "Publish the package again.")
    return [
        RemoteFile(path=file.get("path", ""), size_bytes=file.get("size_bytes", -1), sha256=file.get("sha256") or "")
        for file in files
    ]


class DirectoryDestination:
    """Publishes into a directory: version first, index last, both by rename."""

    def __init__(self, address: Address) -> None:
        if address.revision:
            raise OutputError(
                f"{address.place}@{address.revision} cannot be chosen: a version is named by its content.",
                "Leave the @version out.",
            )
        self._root = Path(address.place).expanduser().absolute()
        self.label = str(address)

    def publish(self, package: Path, listing: Listing, tell: Tell) -> Published:
        from filelock import FileLock

        from ..cache import disk_full_is_an_error

        self._check_place()
        with unwritable_is_an_error(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            with disk_full_is_an_error(self._root), FileLock(self._root / LOCK_FILE):
                return self._publish(package, listing, tell)

    def close(self) -> None:
        """Nothing to release."""

    def _check_place(self) -> None:
        """Refuse a directory that holds something else."""
        if not self._root.is_dir() or (self._root / INDEX_FILE).is_file():
            return
        others = [path.name for path in self._root.iterdir() if not path.name.startswith(".")]
        if others:
            raise OutputError(
                f"{self.label} holds {others[0]!r} and is no place of published packages.", "Choose an empty directory."
            )

    def _publish(self, package: Path, listing: Listing, tell: Tell) -> Published:
        index = self._read_index(listing.name)
        versions: dict[str, Any] = index["versions"]
        self._sweep(versions)
        address = f"{self.label}@{listing.version}"
        home = self._root / listing.version
        total = sum(file.size_bytes for file in listing.files.values())
        copied: list[RemoteFile] = []
        if not self._stands(home, listing):
            copied = self._write_version(package, home, listing, _known_files(self._root, index), tell)
        unchanged = index["latest"] == listing.version and listing.version in versions and not copied
        if not unchanged:
            versions[listing.version] = {"files": [_entry(file) for file in listing.files.values()]}
            _write_index(self._root, index | {"latest": listing.version})
        uploaded_bytes = sum(file.size_bytes for file in copied)
        return Published(
            address=address,
            version=listing.version,
            uploaded=tuple(file.path for file in copied),
            uploaded_bytes=uploaded_bytes,
            kept_bytes=total - uploaded_bytes,
            unchanged=unchanged,
        )

    def _read_index(self, name: str) -> dict[str, Any]:
        path = self._root / INDEX_FILE
        if not path.is_file():
            return {"format_version": INDEX_FORMAT, "name": name, "latest": None, "versions": {}}
        index = transport.parse_json(path.read_bytes(), str(path))
        listing_of(index, None, self.label)  # refuses what is not one
        if index["name"] != name:
            raise OutputError(
                f"{self.label} holds another package, {index['name']!r}.", "Give each package a directory of its own."
            )
        return dict(index)

    def _sweep(self, versions: Mapping[str, Any]) -> None:
        """Remove what a killed publish left; the lock says that none is running."""
        for path in self._root.iterdir():
            unfinished = path.name.startswith(".") and path.name.endswith(".partial")
            unlisted = VERSION.fullmatch(path.name) is not None and path.name not in versions
            if unfinished or unlisted:
                shutil.rmtree(path, ignore_errors=True)
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    @staticmethod
    def _stands(home: Path, listing: Listing) -> bool:
        """Whether every file of the version is there and whole: publishing again mends a damaged place."""
        from ..manifest import sha256_of

        return all(
            (home / file.path).is_file() and sha256_of(home / file.path) == file.sha256
            for file in listing.files.values()
        )

    def _write_version(
        self, package: Path, home: Path, listing: Listing, known: Mapping[str, Path], tell: Tell
    ) -> list[RemoteFile]:
        from ..manifest import sha256_of

        work = self._root / f".{listing.version}.{uuid.uuid4().hex[:8]}.partial"
        copied = []
        try:
            for file in listing.files.values():
                there = work / file.path
                there.parent.mkdir(parents=True, exist_ok=True)
                if not _linked(known.get(str(file.sha256)), there, str(file.sha256)):
                    shutil.copyfile(package / file.path, there)
                    copied.append(file)
                    if sha256_of(there) != file.sha256:
                        raise OutputError(f"{file.path} changed while it was published.", "Run the command again.")
                tell(file.size_bytes)
            if home.exists():  # damaged: _stands refused it
                shutil.rmtree(home)
            work.rename(home)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return copied


def _known_files(root: Path, index: Mapping[str, Any]) -> dict[str, Path]:
    """Digest → a file of an older version that has it, by the index. Raises BadArtifact when one cannot be."""
    known = {}
    for version in index["versions"]:
        for file in listing_of(index, version, str(root)).files.values():
            known[str(file.sha256)] = root / version / file.path
    return known


def _linked(origin: Path | None, there: Path, digest: str) -> bool:
    """Make `there` a hard link to `origin`, when it exists and its bytes are still what its digest says."""
    from ..manifest import sha256_of

    if origin is None or not origin.is_file():
        return False
    try:
        os.link(origin, there)
    except OSError:  # a file system without links: a copy does
        return False
    if sha256_of(there) == digest:
        return True
    there.unlink()
    return False


def _entry(file: RemoteFile) -> dict[str, Any]:
    return {"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256}


def _write_index(root: Path, index: Mapping[str, Any]) -> None:
    scratch = root / f".{INDEX_FILE}.{uuid.uuid4().hex[:8]}.partial"
    try:
        write_json(scratch, index)
        scratch.replace(root / INDEX_FILE)
    finally:
        scratch.unlink(missing_ok=True)
