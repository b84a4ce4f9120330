"""``kobako.json``: what a package says of itself. The schema is published beside this file and checked on reading."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from cattrs import BaseValidationError

from .codec import from_json
from .contracts import Exported, Recipe, Task
from .embeddings import TABLE_FILE
from .errors import BadArtifact, IntegrityError, NotFound
from .heads import Head
from .names import check_distinct, check_member_name
from .versioned import Format

MANIFEST_FILE = "kobako.json"
SET_FILE = "kobako-set.json"
SCHEMA_FILE = Path(__file__).parent / "manifest.schema.json"
FORMAT_VERSION = "1.0"
MAX_MANIFEST_BYTES = 4 * 2**20
FORMAT = Format(what="manifest", version=FORMAT_VERSION, schema=SCHEMA_FILE, limit_bytes=MAX_MANIFEST_BYTES)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entries(home: Path, files: list[str]) -> list[dict[str, Any]]:
    """Path, size and digest of each file, for the manifest."""
    return [
        {"path": name, "size_bytes": (home / name).stat().st_size, "sha256": sha256_of(home / name)} for name in files
    ]


def read_manifest(package: Path) -> Mapping[str, Any]:
    """The manifest of a package directory; fields this version does not know are kept.

    Raises BadArtifact when there is none, when it is not valid, or when its format is of a later major version.
    """
    path = package / MANIFEST_FILE
    try:
        data = FORMAT.load(path)
    except OSError as error:
        is_set = (package / SET_FILE).is_file()
        advice = f"It is a set of packages ({SET_FILE}): give the directory of one of its members." if is_set else ""
        raise BadArtifact(f"{package} is not a kobako package: no readable {MANIFEST_FILE}.", advice) from error
    check_manifest(data, path)
    return cast("Mapping[str, Any]", data)


def check_manifest(data: Any, path: Path) -> None:
    """Raise BadArtifact unless `data` is a manifest this version reads: schema, major version, names of files."""
    FORMAT.check(data, path)
    try:
        _check_names(data)
    except ValueError as error:
        raise BadArtifact(f"{path}: {error}.", "Do not use the package.") from error
    for part, kind, value in _values(data):
        try:
            from_json(value, kind)
        except (BaseValidationError, KeyError, TypeError, ValueError) as error:
            raise BadArtifact(f"{path}: {part} cannot be read: {value!r:.200}.", "Do not use the package.") from error


def _values(manifest: Mapping[str, Any]) -> Iterator[tuple[str, type[Any], Any]]:
    """What is made values of later, when the package is used: so that it is not found out only then."""
    yield "recipe", Recipe, manifest["recipe"]
    if manifest.get("kind") == "encoder":
        yield "head", Head, manifest.get("head")
    for task in manifest["tasks"]:
        yield f"task {task['name']!r}", Task, task


def _check_names(manifest: Mapping[str, Any]) -> None:
    """Raise ValueError for a name that is unsafe, stands twice, or lies outside its target's folder."""
    check_member_name(manifest["name"])
    for target, entry in manifest["targets"].items():
        check_member_name(target)
        for file in entry["files"]:
            if not file["path"].startswith(f"{target}/"):
                raise ValueError(f"{target} lists {file['path']!r}, which does not lie in its folder")
    names = [check_member_name(file["path"]) for file in all_files(manifest)]
    check_distinct(names)
    if any("table" in entry for entry in manifest["targets"].values()) and TABLE_FILE not in names:
        raise ValueError(f"a target reads {TABLE_FILE}, which is not listed")
    if MANIFEST_FILE in names:
        raise ValueError("it lists itself")


def all_files(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every file entry: of each target, and those shared by all."""
    shared: list[Mapping[str, Any]] = list(manifest["files"])
    return shared + [entry for target in manifest["targets"].values() for entry in target["files"]]


def needed_files(manifest: Mapping[str, Any], targets: Collection[str]) -> list[Mapping[str, Any]]:
    """File entries that `targets` need: their own, and the shared ones but for a table that none of them reads."""
    entries = [entry for name, entry in manifest["targets"].items() if name in targets]
    reads = any("table" in entry for entry in entries)
    shared = [file for file in manifest["files"] if reads or file["path"] != TABLE_FILE]
    return [*shared, *(file for entry in entries for file in entry["files"])]


def check_files(package: Path, manifest: Mapping[str, Any], targets: list[str] | None = None) -> None:
    """Compare size and SHA-256 of every file (or of `targets` only). Raises IntegrityError naming a bad one."""
    for entry in needed_files(manifest, list(manifest["targets"]) if targets is None else targets):
        path = package / entry["path"]
        if not path.is_file():
            raise IntegrityError(f"{entry['path']} is missing from {package}.", "Pull or build the package again.")
        if path.stat().st_size != entry["size_bytes"] or sha256_of(path) != entry["sha256"]:
            raise IntegrityError(
                f"{entry['path']} in {package} was changed or damaged.", "Pull or build the package again."
            )


def exported_of(package: Path, manifest: Mapping[str, Any], target: str) -> Exported:
    """One target's artifact in a package, as its runtime takes it. Raises NotFound when there is no such target."""
    if target not in manifest["targets"]:
        raise NotFound(f"{package} has no target {target!r}.", f"It has: {', '.join(manifest['targets'])}.")
    entry = manifest["targets"][target]
    return Exported(
        target=target,
        directory=package.absolute() / target,
        files=tuple(file["path"].removeprefix(f"{target}/") for file in entry["files"]),
        activations=entry["activations"],
        context_tokens=manifest["context_tokens"],
        kv_cache=manifest.get("kv_cache", "float"),
        details=entry["details"],
        kind=manifest.get("kind", "decoder"),
        table=entry.get("table"),
    )
