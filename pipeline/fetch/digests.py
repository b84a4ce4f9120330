"""SHA-256 of files, remembered while a file's size and modification time stay as they were."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path

from ..contracts import Progress, no_progress
from ..errors import IntegrityError
from ..place import UNWRITABLE

CHUNK_BYTES = 1 << 20
RECORD = "digests.json"


class Digests:
    """Digests of files, recorded in one JSON file of the downloads directory.

    Two builds that write at once may lose an entry: that costs one more reading of a file, nothing else.
    """

    def __init__(self, downloads: Path) -> None:
        self._path = downloads / RECORD

    def of(self, path: Path, progress: Progress = no_progress) -> str:
        """SHA-256 of a file in hexadecimal digits, read only when its size or time has changed."""
        real = path.resolve()
        stamp = fingerprint(real)
        known = self._load().get(str(real))
        if isinstance(known, list) and known[:2] == stamp:
            return str(known[2])
        digest = sha256(real, progress)
        self._store(str(real), [*stamp, digest])
        return digest

    def remember(self, path: Path, digest: str) -> None:
        """Record a digest that was computed while the file was written."""
        real = path.resolve()
        self._store(str(real), [*fingerprint(real), digest])

    def _load(self) -> dict[str, object]:
        try:
            record = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _store(self, key: str, value: list[int | str]) -> None:
        record = {path: entry for path, entry in self._load().items() if Path(path).exists()}
        record[key] = value
        try:
            write_atomically(self._path, json.dumps(record, indent=1))
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise  # downloads that may only be read are read, and their digests computed, each time


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that it is whole or absent, whoever else writes it at the same time."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    scratch.write_text(text)
    scratch.replace(path)


def fingerprint(path: Path) -> list[int | str]:
    """Size in bytes and modification time in nanoseconds."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def sha256(path: Path, progress: Progress = no_progress) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    size_bytes, done = max(path.stat().st_size, 1), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(min(done / size_bytes, 1.0), f"verifying {path.name}")
    return digest.hexdigest()


def git_blob_id(path: Path) -> str:
    """The id git gives to a file: what the Hub promises for files that are not in LFS."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def require(path: Path, found: str, expected: str) -> None:
    """Raise IntegrityError unless two digests are equal."""
    if found != expected:
        raise IntegrityError(
            f"{path.name} has digest {found[:16]}…, but {expected[:16]}… was promised.",
            "The damaged file was removed: run the command again.",
        )
