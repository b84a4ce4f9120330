"""Models that already lie on this disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from ..contracts import Progress, Source, SourceFile
from .digests import Digests
from .select import files_below, needed

LICENCE_NAMES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "NOTICE", "NOTICE.txt", "NOTICE.md", "README.md")
UNKNOWN_LICENCE = "unknown"


def directory_source(directory: Path, name: str, downloads: Path, progress: Progress) -> Source:
    """A checkpoint directory as ``save_pretrained`` writes it. Raises UnsupportedModel (no safetensors weights)."""
    paths = needed(files_below(directory), str(directory))
    return local_source(directory, paths, name, downloads, progress)


def gguf_source(path: Path, name: str, downloads: Path, progress: Progress) -> Source:
    """One GGUF file, and the licence files beside it."""
    beside = [licence for licence in LICENCE_NAMES if (path.parent / licence).is_file()]
    return local_source(path.parent, (*beside, path.name), name, downloads, progress)


def local_source(directory: Path, paths: tuple[str, ...], name: str, downloads: Path, progress: Progress) -> Source:
    """A Source of files that stay where they are; its revision is a digest over theirs."""
    digests = Digests(downloads)
    files = tuple(
        SourceFile(
            path=path, size_bytes=(directory / path).stat().st_size, sha256=digests.of(directory / path, progress)
        )
        for path in paths
    )
    revision = hashlib.sha256("".join(f"{file.path}\0{file.sha256}\n" for file in files).encode()).hexdigest()
    form: Literal["safetensors", "gguf"] = "gguf" if paths[-1].endswith(".gguf") else "safetensors"
    origin = (directory / paths[-1] if form == "gguf" else directory).as_uri()
    return Source(
        name=name, origin=origin, revision=f"sha256:{revision}", directory=directory, files=files, format=form,
        licence=card_licence(directory / "README.md") or UNKNOWN_LICENCE,
    )  # fmt: skip


def card_licence(readme: Path) -> str | None:
    """The ``license:`` of a model card's front matter, or None."""
    if not readme.is_file():
        return None
    lines = readme.read_text(errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        if key == "license" and value.strip():
            return spdx(value.strip().strip("\"'"))
    return None


def spdx(licence: str) -> str:
    """The SPDX identifier for a licence as the Hub spells it, or the name itself."""
    known = {
        "apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause", "cc-by-4.0": "CC-BY-4.0",
        "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc-by-nc-4.0": "CC-BY-NC-4.0", "cc0-1.0": "CC0-1.0", "gpl-3.0": "GPL-3.0-only",
    }  # fmt: skip
    return known.get(licence.lower(), licence)
