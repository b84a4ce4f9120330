"""Where a table lies: one file, linked and not copied from place to place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..contracts import Exported
from ..errors import BadArtifact
from .layout import TABLE_FILE


def link_table(source: Path, target: Path) -> None:
    """The table of directory `source` in directory `target` too: a hard link, or a copy on another file system."""
    try:
        os.link(source / TABLE_FILE, target / TABLE_FILE)
    except OSError:
        shutil.copyfile(source / TABLE_FILE, target / TABLE_FILE)


def table_path(exported: Exported) -> Path | None:
    """The table an artifact is fed from; None when it needs none. Raises BadArtifact when it is not there."""
    if exported.table is None:
        return None
    for home in (exported.directory, exported.directory.parent):
        if (home / exported.table).is_file():
            return home / exported.table
    raise BadArtifact(
        f"{exported.directory} is fed from {exported.table}, which is neither there nor one folder up.",
        "Pull the package again.",
    )
