"""Which paths a source may list: each plain (`kobako.pipeline.names`), all together bounded and distinct."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import BadArtifact
from ..names import check_distinct, check_member_name

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
    for path in paths:
        checked.append(check_path(path, where))
        if len(checked) > MAX_FILES:
            raise BadArtifact(f"{where} holds more than {MAX_FILES} files.", "Do not use this source.")
    try:
        check_distinct(checked)
    except ValueError as error:
        raise BadArtifact(f"{where}: {error}.", "Do not use this source.") from error
    return tuple(checked)
