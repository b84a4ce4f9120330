"""A finished directory takes its place: all of it at once, whatever stands there, whenever the machine dies."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import platform
import re
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # Linux, linux/fs.h
RENAME_SWAP = 2  # macOS, sys/stdio.h
UNWRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
FULL = (errno.ENOSPC, errno.EDQUOT)
"""A full disk, and a quota that is used up, which is the same to whoever writes."""
MARK = re.compile(r"\.(?P<name>.+)\.(?P<host>[^@]*)@(?P<pid>\d+)@[0-9a-f]{8}\.(?:partial|old)")


def scratch_beside(out: Path) -> Path:
    """A name beside `out` for work in progress; `sweep` finds it when this process is gone."""
    return out.parent / f".{out.name}.{_host()}@{os.getpid()}@{uuid.uuid4().hex[:8]}.partial"


def _host() -> str:
    return platform.node().replace("@", "").replace(".", "")


def sweep(out: Path) -> None:
    """Remove what processes of this machine that are gone left beside `out`."""
    import psutil

    if not out.parent.is_dir():
        return
    for path in out.parent.glob(f".{glob.escape(out.name)}.*"):
        match = MARK.fullmatch(path.name)
        mine = match is not None and match["name"] == out.name and match["host"] == _host()
        if match and mine and not psutil.pid_exists(int(match["pid"])):
            if not out.exists() and path.suffix == ".old":
                with suppress(OSError):  # killed between two renames, on a system that cannot exchange
                    path.rename(out)
                    continue
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def unwritable_is_an_error(out: Path) -> Iterator[None]:
    """Say in kobako's words that a place cannot be written: forbidden, read-only, or below a file."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise OutputError(f"{out} cannot be written: {error.strerror}.", "Choose another place.") from error


def take_place(work: Path, out: Path) -> None:
    """Put the directory `work` where `out` is; what stood there goes only once the new one stands.

    Where the system can exchange two directories (Linux, macOS), `out` exists at every moment.
    Raises OSError.
    """
    if not out.exists():
        try:
            work.rename(out)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process was quicker
                raise
    if _exchange(work, out):
        shutil.rmtree(work, ignore_errors=True)
        return
    old = work.with_suffix(".old")
    out.rename(old)
    work.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step; False where system or file system cannot."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(os.fsencode(one), os.fsencode(other), RENAME_SWAP) == 0)
        return bool(libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)
    except (OSError, AttributeError):  # no such library, or no such function in it
        return False
