"""The content-addressed cache: one directory per stage result, complete or absent, never half.

    ROOT/STAGE/KEY/files/…      what the stage wrote
    ROOT/STAGE/KEY/entry.json   its inputs, its result value and the size of every file
    ROOT/tmp/…                  work in progress; renamed into place when done
    ROOT/locks/…  ROOT/logs/…   one lock and one log per key

Key = SHA-256 of stage name, code version, and inputs (which contain the keys of earlier stages, or digests). A kill at
any moment leaves at most a directory under ``tmp/``, which the next run sweeps away. What is finished is served from a
place that cannot be written, too; ``entry.json``'s time is that of its last use.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .codec import read_json, write_json
from .errors import NotEnoughDisk, OutputError, TargetCrashed
from .place import FULL, UNWRITABLE

if TYPE_CHECKING:
    from filelock import FileLock

    from .shared_cache import SharedCache

NEARLY_FULL_BYTES = 4 * 2**20
STALE_AFTER_S = 24 * 3600.0
ENTRY_MARK = "@entry"
CODE_SUFFIXES = {".py", ".toml", ".txt", ".json", ".html", ".css"}


def default_root() -> Path:
    """``$KOBAKO_CACHE``, or the user's cache directory."""
    if chosen := os.environ.get("KOBAKO_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("kobako"))


def code_version(*places: Path) -> str:
    """Digest of the Python (and data) files at or below `places`: changed code gives other keys."""
    digest = hashlib.sha256()
    for place in places:
        files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix in CODE_SUFFIXES)
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def stage_key(stage: str, inputs: Mapping[str, Any]) -> str:
    """The key of a stage result."""
    text = json.dumps({"stage": stage, "inputs": inputs}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """A finished stage: where its files lie, and the JSON value it returned."""

    stage: str
    key: str
    files: Path
    value: Any
    seconds: float
    peak_rss_bytes: int
    hit: bool


@dataclass(frozen=True)
class Made:
    """What a stage's maker returns to the cache."""

    value: Any
    peak_rss_bytes: int = 0


class Cache:
    """A cache below `root`, shared safely by any number of processes."""

    def __init__(self, root: Path, shared: SharedCache | None = None) -> None:
        self.root = root
        self._shared = shared  # where other machines' finished stages lie

    def prepare(self) -> None:
        """Create the layout and sweep leftovers. Raises OutputError when the place cannot be written."""
        try:
            for name in ("tmp", "locks", "logs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.root, error) from error
        for left in (self.root / "tmp").iterdir():
            if _is_stale(left):
                shutil.rmtree(left, ignore_errors=True)

    def log_path(self, stage: str, key: str) -> Path:
        """Where the stage's process writes what its vendors print."""
        return self.root / "logs" / f"{stage}-{key[:12]}.log"

    def find(self, stage: str, key: str) -> Entry | None:
        """A finished entry, or None when it is absent or damaged (files missing or of another size)."""
        home = self.root / stage / key
        try:
            record = read_json(home / "entry.json")
            intact = all((home / "files" / name).stat().st_size == size for name, size in record["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        if not intact:
            return None
        value = _replace(record["value"], ENTRY_MARK, str(home / "files"))
        return Entry(stage, key, home / "files", value, record["seconds"], record["peak_rss_bytes"], hit=True)

    def known(self, stage: str, key: str) -> Entry | None:
        """A finished entry that lies here or can be brought from other machines, or None. Raises as `get` does."""
        if (found := self.find(stage, key)) or self._shared is None:
            return found
        with self._locked(stage, key):
            return self.find(stage, key) or self._bring(stage, key)

    def get(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], Made],
        stopped: Callable[[], bool] = lambda: False,
    ) -> Entry:
        """The entry of (stage, inputs); `make` writes it into an empty directory when it is not there yet.

        Raises NotEnoughDisk, OutputError where it cannot be written, TargetCrashed when it was `stopped` while another
        process made the same, and whatever `make` raises; nothing half-made stays under the final name.
        """
        key = stage_key(stage, inputs)
        if found := self.find(stage, key):
            with suppress(OSError):  # a cache that may only be read serves, too
                os.utime(found.files.parent / "entry.json")
            return found
        with self._locked(stage, key, stopped):
            return self.find(stage, key) or self._bring(stage, key) or self._make(stage, key, inputs, make)

    @contextmanager
    def _locked(self, stage: str, key: str, stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
        from filelock import FileLock

        lock = FileLock(self.root / "locks" / f"{stage}-{key}.lock")
        with unwritable_cache_is_an_error(self.root):
            while not _taken(lock):
                if stopped():
                    raise TargetCrashed(f"{stage} was not waited for: the build is stopping.")
            try:
                yield
            finally:
                lock.release()

    def _bring(self, stage: str, key: str) -> Entry | None:
        """The entry that another machine made, or None."""
        if self._shared is None:
            return None
        with self._workspace() as work, disk_full_is_an_error(self.root):
            if not self._shared.bring(stage, key, work):
                return None
            self._take_place(work, self.root / stage / key)
        return self.find(stage, key)

    @staticmethod
    def _take_place(work: Path, home: Path) -> None:
        home.parent.mkdir(exist_ok=True)
        if home.exists():  # damaged: find() refused it
            shutil.rmtree(home)
        work.rename(home)

    def _make(self, stage: str, key: str, inputs: Mapping[str, Any], make: Callable[[Path], Made]) -> Entry:
        started = time.monotonic()
        with self._workspace() as work, disk_full_is_an_error(self.root):
            files = work / "files"
            files.mkdir()
            made = make(files)
            seconds = time.monotonic() - started
            record = {
                "stage": stage,
                "key": key,
                "inputs": dict(inputs),
                "value": _replace(made.value, str(files), ENTRY_MARK),
                "seconds": seconds,
                "peak_rss_bytes": made.peak_rss_bytes,
                "files": {str(p.relative_to(files)): p.stat().st_size for p in sorted(files.rglob("*")) if p.is_file()},
            }
            write_json(work / "entry.json", record)
            home = self.root / stage / key
            self._take_place(work, home)
        if self._shared is not None:
            self._shared.keep(stage, key, home)
        value = _replace(record["value"], ENTRY_MARK, str(home / "files"))
        return Entry(stage, key, home / "files", value, seconds, made.peak_rss_bytes, hit=False)

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        work = self.root / "tmp" / f"{platform.node()}@{os.getpid()}@{uuid.uuid4().hex[:8]}"
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def entries(self) -> Iterator[tuple[str, str, int, float]]:
        """(stage, key, bytes, last use as POSIX time) of every entry."""
        for record in sorted(self.root.glob("*/*/entry.json")):
            home = record.parent
            size = sum(p.stat().st_size for p in home.rglob("*") if p.is_file())
            yield home.parent.name, home.name, size, record.stat().st_mtime

    def remove(self, stage: str, key: str) -> None:
        """Forget one entry. Raises OutputError where it cannot be removed."""
        with self._locked(stage, key):
            try:
                shutil.rmtree(self.root / stage / key)
            except OSError as error:
                if error.errno in UNWRITABLE:
                    raise
                # otherwise another process was quicker, or has a file open: the next prune takes what is left


def _taken(lock: FileLock) -> bool:
    """Whether a lock could be taken within half a second."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        return False
    return True


def _unwritable(root: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the cache {root} cannot be written: {error.strerror}.",
        "Name a writable directory with --cache-dir, or set KOBAKO_CACHE to one.",
    )


@contextmanager
def unwritable_cache_is_an_error(root: Path) -> Iterator[None]:
    """Say in kobako's words that something below `root` cannot be written; errors about other files pass."""
    try:
        yield
    except OSError as error:
        named = isinstance(error.filename, str | bytes) and Path(os.fsdecode(error.filename)).is_relative_to(root)
        if error.errno not in UNWRITABLE or not named:
            raise
        raise _unwritable(root, error) from error


@contextmanager
def disk_full_is_an_error(place: Path) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into NotEnoughDisk, with what is free.

    So does a stage that died while hardly anything was free: vendors' libraries and numpy say a full disk in words of
    their own ("196608 requested and 36832 written"), without a number.
    """
    try:
        yield
    except Exception as error:
        if not _tells_of_a_full_disk(error, place):
            raise
        raise NotEnoughDisk(
            f"the disk of {place} is full ({shutil.disk_usage(place).free / 1e6:.0f} MB left).",
            "Free some space (`kobako cache prune`) and run the same command again: finished stages are kept.",
        ) from error


def _tells_of_a_full_disk(error: Exception, place: Path) -> bool:
    """Whether ENOSPC or EDQUOT is behind an error, be it one that was told in other words."""
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:
        return True
    if isinstance(error, TargetCrashed):
        return shutil.disk_usage(place).free <= NEARLY_FULL_BYTES
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(f"(os error {number})" in str(error) for number in FULL)  # as Rust says it: safetensors, tokenizers


def _is_stale(work: Path) -> bool:
    """Left behind by a process that is gone (or by another machine, a day ago)."""
    import psutil

    host, _, rest = work.name.partition("@")
    pid = rest.partition("@")[0]
    if host == platform.node() and pid.isdigit() and not psutil.pid_exists(int(pid)):
        return True
    try:
        return time.time() - work.stat().st_mtime > STALE_AFTER_S
    except OSError:
        return False


def _replace(value: Any, old: str, new: str) -> Any:
    """Replace a path prefix in every string of a JSON value, so that a cache may be moved."""
    if isinstance(value, str):
        return new + value[len(old) :] if value == old or value.startswith(old + "/") else value
    if isinstance(value, dict):
        return {key: _replace(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(item, old, new) for item in value]
    return value
