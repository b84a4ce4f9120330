"""Which paths a source may list: each plain (`kobako.pipeline.names`), all together bounded and distinct."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import BadArtifact
from ..names import check_member_name

MAX_FILES = 10_000


def is_plain(path: object) -> bool:
    """Whether a path may be in a package."""
    try:
        check_member_name(path)
    except ValueError:
        return False
    return True


def check_path(path: object, where: str) -> str:
    """`path`, when it may be in a package. Raises BadArtifact."""
    try:
        return check_member_name(path)
    except ValueError as error:
        raise BadArtifact(f"{where}: {error}.", "Do not use this source.") from error


def check_paths(paths: Iterable[object], where: str) -> tuple[str, ...]:
    """Every path, checked alone and together: bounded in number, and distinct where upper case is not told from lower.

    Raises BadArtifact.
    """
    checked: list[str] = []
    folded: dict[str, str] = {}
    for path in paths:
        name = check_path(path, where)
        other = folded.setdefault(name.casefold(), name)
        if len(checked) >= MAX_FILES:
            raise BadArtifact(f"{where} holds more than {MAX_FILES} files.", "Do not use this source.")
        if other != name:
            raise BadArtifact(
                f"{where} holds both {other!r} and {name!r}, which some file systems cannot.", "Do not use this source."
            )
        checked.append(name)
    return tuple(checked)
