"""The files of a package directory: which there are, and whether they are what somebody vouches for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from .errors import IntegrityError
from .manifest import MANIFEST_FILE, all_files, read_manifest, sha256_of
from .signature.bundle import SIGNATURE_FILE


def files_in(package: Path) -> dict[str, int]:
    """Path → size of every file of the package. Raises IntegrityError for a link or a device."""
    found: dict[str, int] = {}
    waiting = [package]
    while waiting:
        with _entries(waiting.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                name = Path(entry.path).relative_to(package).as_posix()
                if stat.S_ISDIR(mode):
                    waiting.append(Path(entry.path))
                elif stat.S_ISREG(mode):
                    found[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    raise IntegrityError(
                        f"{name!r} in {package} is a link or a device, which no package holds.",
                        "Do not use the package.",
                    )
    return found


def _entries(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise IntegrityError(f"{folder} cannot be read: {error.strerror}.", "Pull the package again.") from error


def digests_of_manifest(package: Path) -> dict[str, str]:
    """For a package that nobody signed: the digests it claims itself, so that at least damage is seen."""
    manifest = read_manifest(package)
    listed = {str(entry["path"]): str(entry["sha256"]) for entry in all_files(manifest)}
    return listed | {MANIFEST_FILE: sha256_of(package / MANIFEST_FILE)}


def refuse_strangers(package: Path, present: Mapping[str, int], digests: Mapping[str, str]) -> None:
    """Raise IntegrityError for files that are not among `digests`; the signature itself need not be."""
    strangers = sorted(set(present) - set(digests) - {SIGNATURE_FILE})
    if strangers:
        shown = ", ".join(repr(name) for name in strangers[:5])
        raise IntegrityError(
            f"{package} holds {len(strangers)} files that nobody vouches for: {shown}.",
            "Remove them, or pull it again.",
        )


def compare(package: Path, digests: Mapping[str, str]) -> None:
    """Raise IntegrityError unless every file has its SHA-256."""
    for name, digest in digests.items():
        path = package / name
        try:
            found = sha256_of(path)
        except FileNotFoundError as error:
            raise IntegrityError(f"{name} is missing from {package}.", "Pull or build the package again.") from error
        except OSError as error:
            raise IntegrityError(f"{name} in {package} cannot be read: {error.strerror}.", "Pull it again.") from error
        if found != digest:
            raise IntegrityError(f"{name} in {package} was changed or damaged.", "Pull or build the package again.")
