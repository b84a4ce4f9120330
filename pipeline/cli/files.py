"""Small files that a command writes beside its result: the JUnit XML, a statement, CI's summary."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OutputError


def check_writable(path: Path | None) -> None:
    """Raise OutputError, before any work, for a file that could not be written after it. Makes nothing."""
    from ..place import unwritable_is_an_error

    if path is None:
        return
    with unwritable_is_an_error(path):
        parent = next(one for one in path.absolute().parents if one.exists())
        writable = os.access(path if path.exists() else parent, os.W_OK)
    if path.is_dir() or not parent.is_dir() or not writable:
        raise OutputError(f"{path} cannot be written.", "Choose another place.")


def write_file(path: Path, text: str, *, append: bool = False) -> None:
    """Write a text, into a new directory if need be. Raises OutputError, NotEnoughDisk."""
    from ..cache import disk_full_is_an_error
    from ..place import unwritable_is_an_error

    with unwritable_is_an_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_is_an_error(path.parent), path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
