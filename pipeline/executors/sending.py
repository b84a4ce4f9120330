"""A package goes to a URL, perhaps over an older one: at every moment a manifest there belongs to all that lies there.

The old manifest goes first, the new one comes last, and what the old package had and the new one has not is removed. A
file marks what is under way, so that an upload that broke off can be told from files that are none of kobako's.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import OutputError
from ..manifest import MANIFEST_FILE, read_manifest
from ..registry.addresses import without_secrets
from ..remote import opened, reached

UNDER_WAY = "kobako.uploading"
KEPT = "What was built is in the cache: run it again."


class Destination:
    """The directory of one package at a URL. Raises what `remote.opened` raises: before anything is built."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._files, self._root = opened(url)

    def check(self, name: str = "") -> None:
        """Raise OutputError when something stands there that is no package, or not the package `name`.

        Raises NetworkError when it cannot be listed, or, without a `name`, when nothing can be written and removed.
        """
        with reached(self._url, "Check the address and the login: kobako lists, writes and removes files there."):
            found = self._listed()
            standing = self._name() if MANIFEST_FILE in found else None
            free = UNDER_WAY in found or not found or (standing is not None and name in ("", standing))
            if free and not name:
                self._mark()
                if UNDER_WAY not in found:
                    self._files.rm_file(f"{self._root}/{UNDER_WAY}")
        if not free:
            what = "files that are no kobako package" if standing is None else f"another package, {standing}"
            raise OutputError(f"{without_secrets(self._url)} holds {what}.", "Choose another --out, or remove it.")

    def send(self, package: Path) -> None:
        """Copy a package there. Raises NetworkError, and OutputError as `check` does."""
        self.check(read_manifest(package)["name"])
        names = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
        with reached(self._url, KEPT):
            old = self._listed()
            self._mark()
            if MANIFEST_FILE in old:
                self._files.rm_file(f"{self._root}/{MANIFEST_FILE}")
            for name in sorted(names - {MANIFEST_FILE}):
                self._put(package, name)
            for name in sorted(old - names - {MANIFEST_FILE, UNDER_WAY}):
                self._files.rm_file(f"{self._root}/{name}")
            self._put(package, MANIFEST_FILE)
            self._files.rm_file(f"{self._root}/{UNDER_WAY}")

    def _mark(self) -> None:
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{UNDER_WAY}", b"kobako is writing this package.\n")

    def _put(self, package: Path, name: str) -> None:
        there = f"{self._root}/{name}"
        self._files.makedirs(there.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(package / name), there)

    def _listed(self) -> set[str]:
        """The files there, by their paths below the package."""
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._root)
        except FileNotFoundError:
            return set()
        return {path.removeprefix(self._root).lstrip("/") for path in found}

    def _name(self) -> str | None:
        """The name in the manifest there; None when it is none."""
        try:
            name = json.loads(self._files.cat_file(f"{self._root}/{MANIFEST_FILE}"))["name"]
        except (ValueError, TypeError, KeyError):
            return None
        return name if isinstance(name, str) else None
