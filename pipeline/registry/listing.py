"""What a road offers: every file of one version of a package, with its size and digest; and the two protocols."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import BadArtifact
from .names import check_path, check_paths

MAX_FILE_BYTES = 2**40  # no phone holds more; larger figures are lies, and would overflow sums elsewhere

Tell = Callable[[int], None]
"""Told how many more bytes have arrived (negative when some were discarded); raises to stop the transfer."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file as the source describes it.

    Attributes:
        sha256: None where the source does not know it (small files on the Hub); the package's manifest does.
        git_id: git's digest, where that is what the source knows.
        target: the target it belongs to, where the source tells; None otherwise.
    """

    path: str
    size_bytes: int
    sha256: str | None
    git_id: str | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One version of a package at a source. `version`: a digest or commit that names exactly these files."""

    name: str
    version: str
    files: Mapping[str, RemoteFile]


def make_listing(name: str, version: str, files: Iterable[RemoteFile], where: str) -> Listing:
    """A Listing, after checking names, sizes and digests. Raises BadArtifact."""
    if "/" in check_path(name, where):
        raise BadArtifact(f"{where} has an impossible package name.", "Do not use this source.")
    found = tuple(files)
    check_paths([file.path for file in found], where)
    for file in found:
        if isinstance(file.size_bytes, bool) or not isinstance(file.size_bytes, int) or not _sane(file):
            raise BadArtifact(f"{where} lists {file.path} with an impossible size or digest.", "Publish it again.")
    return Listing(name=name, version=version, files={file.path: file for file in found})


def _sane(file: RemoteFile) -> bool:
    digest = file.sha256
    named = digest is None or (isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef"))
    return 0 <= file.size_bytes <= MAX_FILE_BYTES and named


def version_of(files: Iterable[RemoteFile]) -> str:
    """The name of a set of files: a digest over their paths, sizes and digests, in 32 hexadecimal digits."""
    lines = sorted(f"{file.sha256} {file.size_bytes} {file.path}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


class Source(Protocol):
    """Where packages come from."""

    @property
    def label(self) -> str:
        """The source as it may be shown: no secrets in it."""
        ...

    def listing(self) -> Listing:
        """What lies there. Raises NotFound, AccessDenied, NetworkError, BadArtifact."""
        ...

    def bring(self, file: RemoteFile, partial: Path, tell: Tell) -> None:
        """Leave the file's bytes at `partial`, continuing what is there where that is safe; digests are checked later.

        Raises Interrupted (worth another attempt), IntegrityError, NotFound, AccessDenied, NetworkError.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Destination(Protocol):
    """Where packages go."""

    @property
    def label(self) -> str:
        """The destination as it may be shown: no secrets in it."""
        ...

    def publish(self, package: Path, listing: Listing, tell: Tell) -> Published:
        """Make the files of `package` available as a new version, complete or not at all.

        Raises AccessDenied, NetworkError, NotEnoughDisk, OutputError.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


@dataclass(frozen=True, kw_only=True)
class Published:
    """What publishing did. `address`: what to pull to get exactly this version again."""

    address: str
    version: str
    uploaded: tuple[str, ...]
    uploaded_bytes: int
    kept_bytes: int
    unchanged: bool
