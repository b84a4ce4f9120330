"""JSON files of a versioned format: bounded, held against a schema; any minor version is read, other majors are not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .codec import read_json
from .errors import BadArtifact
from .names import printable

UPGRADE = "Upgrade kobako: pip install --upgrade kobako"


@dataclass(frozen=True, kw_only=True)
class Format:
    """One such format.

    Attributes:
        what: what a file of it is, for messages, such as ``manifest``.
        version: ``MAJOR.MINOR`` that this kobako writes; it reads every minor of that major.
        schema: JSON Schema of it; fields that it does not name are kept.
        limit_bytes: no honest file is larger.
    """

    what: str
    version: str
    schema: Path
    limit_bytes: int

    def load(self, path: Path) -> Any:
        """The content of a file, to be checked. Raises BadArtifact for one that is no JSON or too large, OSError."""
        if path.stat().st_size > self.limit_bytes:
            raise BadArtifact(f"{path} is larger than any {self.what}.", "Do not use it.")
        try:
            return read_json(path)
        except (ValueError, RecursionError) as error:
            raise BadArtifact(f"{path} is not JSON: {error}.", "Pull it again.") from error

    def check(self, data: Any, path: Path) -> None:
        """Raise BadArtifact unless `data` is of a major version that this kobako reads, and fits the schema."""
        version = data.get("format_version") if isinstance(data, dict) else None
        found = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", version) if isinstance(version, str) else None
        if isinstance(version, str) and not found:
            raise BadArtifact(f"{path} has the format {printable(version)[:40]!r}, which is none.", "Do not use it.")
        ours = [int(part) for part in self.version.split(".")]
        theirs = [int(part) for part in found.groups()] if found else ours
        if theirs[0] != ours[0]:
            advice = UPGRADE if theirs[0] > ours[0] else "Use an older kobako."
            raise BadArtifact(f"{path} has format {version}; this kobako reads {ours[0]}.x.", advice)
        try:
            # the first problem: all of a hostile file's would take minutes
            problem = next(_validator(self.schema).iter_errors(data), None)
        except RecursionError as error:
            raise BadArtifact(f"{path} is nested too deeply to be a {self.what}.", "Do not use it.") from error
        if problem is not None:
            said = printable(problem.message)[:300]
            newer = f"It has format {version}: a newer kobako may read it." if theirs > ours else ""
            place = printable(problem.json_path)[:100]
            raise BadArtifact(f"{path} is not a valid {self.what}: {said} at {place}.", newer)


@cache
def _validator(schema: Path) -> Any:
    """A schema, compiled once."""
    import jsonschema

    return jsonschema.Draft202012Validator(read_json(schema))
