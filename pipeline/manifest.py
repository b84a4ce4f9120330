"""``kobako.json``: what a package says of itself. The schema is published beside this file and checked on reading."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from .codec import read_json
from .contracts import Exported
from .embeddings import TABLE_FILE
from .errors import BadArtifact, IntegrityError, NotFound
from .names import check_distinct, check_member_name, printable

MANIFEST_FILE = "kobako.json"
SCHEMA_FILE = Path(__file__).parent / "manifest.schema.json"
FORMAT_VERSION = "1.0"
MAX_MANIFEST_BYTES = 4 * 2**20


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
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BadArtifact(f"{path} is larger than any manifest.", "This is not a kobako package.")
        data = read_json(path)
    except OSError as error:
        raise BadArtifact(f"{package} is not a kobako package: no readable {MANIFEST_FILE}.") from error
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"{path} is not JSON: {error}.", "Pull the package again.") from error
    check_manifest(data, path)
    return cast("Mapping[str, Any]", data)


@cache
def _validator() -> Any:
    """The schema, compiled once."""
    import jsonschema

    return jsonschema.Draft202012Validator(read_json(SCHEMA_FILE))


def check_manifest(data: Any, path: Path) -> None:
    """Raise BadArtifact unless `data` is a manifest this version reads: schema, major version, names of files."""
    version = data.get("format_version") if isinstance(data, dict) else None
    found = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", version) if isinstance(version, str) else None
    if isinstance(version, str) and not found:
        raise BadArtifact(f"{path} has the format {printable(version)[:40]!r}, which is none.", "Do not use it.")
    ours = [int(part) for part in FORMAT_VERSION.split(".")]
    theirs = [int(part) for part in found.groups()] if found else ours
    if theirs[0] != ours[0]:
        advice = "Upgrade kobako: pip install --upgrade kobako" if theirs[0] > ours[0] else "Use an older kobako."
        raise BadArtifact(f"{path} has format {version}; this kobako reads {ours[0]}.x.", advice)
    try:
        problem = next(_validator().iter_errors(data), None)  # the first: all of a hostile file's would take minutes
    except RecursionError as error:
        raise BadArtifact(f"{path} is nested too deeply to be a manifest.", "Do not use it.") from error
    if problem is not None:
        said = printable(problem.message)[:300]
        newer = f"It has format {version}: a newer kobako may read it." if theirs > ours else ""
        raise BadArtifact(f"{path} is not a valid manifest: {said} at {printable(problem.json_path)[:100]}.", newer)
    try:
        _check_names(data)
    except ValueError as error:
        raise BadArtifact(f"{path}: {error}.", "Do not use the package.") from error


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
        details=entry["details"],
        kind=manifest.get("kind", "decoder"),
        table=entry.get("table"),
    )
