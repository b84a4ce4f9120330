"""Names of files inside a package: the same on every system, and never outside the package."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

MAX_NAME_BYTES = 512
FORBIDDEN = frozenset('\\:*?"<>|')
RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10)})
"""Device names that Windows keeps for itself, with any extension."""


def printable(text: str) -> str:
    """`text` with control and invisible characters spelled out: what a hostile file says must not steer a terminal."""
    return "".join(
        character
        if character in "\n\t" or not unicodedata.category(character).startswith("C")
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def check_member_name(name: object) -> str:
    """`name` if it may name a file in a package: relative, with ``/`` between parts, no ``.`` or ``..``, no control
    or invisible characters, nothing a phone's or a developer's file system would change or refuse.

    Raises ValueError, which the caller turns into the error of its format.
    """
    if not isinstance(name, str) or not name:
        raise ValueError("a file has no name")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the file name {name!r} is not Unicode text") from error
    if len(encoded) > MAX_NAME_BYTES:
        raise ValueError(f"the file name {name[:40]!r}… is longer than {MAX_NAME_BYTES} bytes")
    if any(character in FORBIDDEN or (unicodedata.category(character).startswith(("C", "Z")) and character != " ")
           for character in name):  # fmt: skip
        raise ValueError(f"the file name {name!r} holds a character that no package may hold")
    if unicodedata.normalize("NFC", name) != name:
        raise ValueError(f"the file name {name!r} is not in Unicode's normal form C")
    for part in name.split("/"):
        if part in ("", ".", "..") or part != part.strip() or part.endswith("."):
            raise ValueError(f"the file name {name!r} leaves the package or is not plain")
        if part.partition(".")[0].casefold() in RESERVED:
            raise ValueError(f"the file name {name!r} is a device on Windows")
    return name


def check_distinct(names: Iterable[str]) -> None:
    """Raise ValueError unless all names can lie in one directory of a file system that does not tell capitals apart.

    Folders count too: ``A/x`` beside ``a/y`` become one folder on a phone or a Mac, and nothing is where it was listed.
    """
    root: dict[str, Any] = {}
    for name in names:
        folder, parts = root, name.split("/")
        for number, part in enumerate(parts, 1):
            fresh: dict[str, Any] | None = {} if number < len(parts) else None  # None: a file
            key = unicodedata.normalize("NFC", part.casefold())
            if key not in folder:
                folder[key] = (part, fresh)
            elif folder[key][0] != part:
                raise ValueError(f"{name!r} and another name differ in capitals only, which some file systems lose")
            elif folder[key][1] is None or fresh is None:
                raise ValueError(f"{name!r} stands in it twice, or is a file and a folder")
            folder = folder[key][1]
