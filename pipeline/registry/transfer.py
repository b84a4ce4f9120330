"""Many files from a source into a directory: several at once, each counted only when its digest matches."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import IntegrityError
from ..fetch.digests import git_blob_id, sha256
from . import transport
from .listing import RemoteFile, Source

DIGEST_ATTEMPTS = 2
Moved = Callable[[int], None]
"""Told the bytes that arrived so far, of all files together."""


@dataclass
class Meter:
    """Counts bytes over all threads; `stop` ends every transfer at its next chunk."""

    moved: Moved
    arrived_bytes: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, more_bytes: int) -> None:
        if self.stop.is_set():
            raise StoppedError
        with self._lock:
            self.arrived_bytes += more_bytes
            self.moved(self.arrived_bytes)


class StoppedError(Exception):
    """Another file has failed: this one need not go on."""


@dataclass(frozen=True)
class Workspace:
    """Where a pull assembles a package: `parts` for what is not whole, `tree` for what is. It outlives a kill."""

    home: Path

    @property
    def tree(self) -> Path:
        return self.home / "tree"

    @property
    def parts(self) -> Path:
        return self.home / "parts"

    def prepare(self) -> None:
        """Create both directories. Raises OSError."""
        self.tree.mkdir(parents=True, exist_ok=True)
        self.parts.mkdir(exist_ok=True)

    def partial(self, file: RemoteFile) -> Path:
        """Named by the content it shall have: whatever is there may be continued."""
        return self.parts / (file.sha256 or f"git-{file.git_id}")

    def waiting_bytes(self, file: RemoteFile) -> int:
        """How much of a file has arrived."""
        partial = self.partial(file)
        return min(partial.stat().st_size, file.size_bytes) if partial.exists() else 0


def has_digest(path: Path, file: RemoteFile) -> bool:
    """Whether `path` is the very file that is described."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    if file.sha256 is not None:
        return sha256(path) == file.sha256
    return file.git_id is not None and git_blob_id(path) == file.git_id


def obtain(source: Source, file: RemoteFile, workspace: Workspace, meter: Meter) -> None:
    """Bring one file into the workspace's tree.

    Raises IntegrityError when what arrives has another digest twice, and what the source raises.
    """
    partial, there = workspace.partial(file), workspace.tree / file.path
    for attempt in range(1, DIGEST_ATTEMPTS + 1):
        transport.retried(
            lambda: source.bring(file, partial, meter.tell), source.label, lambda: workspace.waiting_bytes(file)
        )
        if has_digest(partial, file):
            there.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(there)
            transport.discard(partial)
            return
        found, size_bytes = sha256(partial), partial.stat().st_size
        transport.discard(partial)
        if attempt < DIGEST_ATTEMPTS:  # a part of an older file may have been continued: once more, from the start
            meter.tell(-size_bytes)
    raise IntegrityError(
        f"{file.path} arrived from {source.label} with digest {found[:16]}… ({size_bytes:,} bytes), not the promised "
        f"{(file.sha256 or file.git_id or '')[:16]}… ({file.size_bytes:,} bytes).",
        "It was discarded. If it repeats, the source is damaged or something alters what it carries.",
    )


def obtain_all(source: Source, files: Sequence[RemoteFile], workspace: Workspace, meter: Meter, jobs: int) -> None:
    """Bring files side by side, largest first; one content is transferred once, whatever it is called.

    Raises the first failure, after the others have stopped; what they brought stays in the workspace.
    """
    first: dict[str, RemoteFile] = {}
    copies: list[tuple[RemoteFile, RemoteFile]] = []
    for file in sorted(files, key=lambda file: -file.size_bytes):
        original = first.setdefault(file.sha256 or f"{file.git_id} {file.path}", file)
        if original is not file:
            copies.append((original, file))

    def one(file: RemoteFile) -> None:
        try:
            obtain(source, file, workspace, meter)
        except BaseException:
            meter.stop.set()
            raise

    with ThreadPoolExecutor(jobs, thread_name_prefix="pull") as pool:
        futures = [pool.submit(one, file) for file in first.values()]
        try:
            failures = [error for future in futures if (error := future.exception()) is not None]
        except BaseException:  # Ctrl-C here, not in a thread
            meter.stop.set()
            for future in futures:
                future.cancel()
            raise
    for error in sorted(failures, key=lambda error: isinstance(error, StoppedError)):
        raise error
    for original, copy in copies:
        there = workspace.tree / copy.path
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workspace.tree / original.path, there)


def link_or_copy(origin: Path, there: Path) -> None:
    """What an older package holds, for the one that takes its place: a hard link, or a copy where there are none."""
    there.parent.mkdir(parents=True, exist_ok=True)
    there.unlink(missing_ok=True)
    try:
        os.link(origin, there)
    except OSError:
        shutil.copyfile(origin, there)
