"""What a model signature vouches for: the name and the SHA-256 of every file, as an in-toto statement.

Predicate ``https://model_signing/signature/v1.0`` of the OpenSSF model-signing specification. The subject's digest is
the SHA-256 over all digests in the order listed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Untrusted
from ..names import check_distinct, check_member_name

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_FILES = 50_000


@dataclass(frozen=True, kw_only=True)
class Statement:
    """The files a signature vouches for. `digests`: SHA-256 in hex, by path inside the package."""

    name: str
    digests: Mapping[str, str]


def encode_statement(statement: Statement, ignored: tuple[str, ...]) -> bytes:
    """The bytes to sign. `ignored`: paths that are not signed, at least the signature itself."""
    names = sorted(statement.digests)
    total = hashlib.sha256(b"".join(bytes.fromhex(statement.digests[name]) for name in names)).hexdigest()
    value = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": statement.name, "digest": {"sha256": total}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(ignored),
            },
            "resources": [{"name": n, "algorithm": "sha256", "digest": statement.digests[n]} for n in names],
        },
    }
    return json.dumps(value).encode()


def parse_statement(payload: bytes) -> Statement:
    """Read bytes whose signature has been checked.

    Raises Untrusted when they are not a model signature of this version, contradict themselves, or name files that no
    package can hold.
    """
    try:
        return _parse(json.loads(payload))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Untrusted(
            f"what was signed is not a list of files: {str(error)[:200]}.", "Sign the package again."
        ) from error


def _parse(value: Any) -> Statement:
    if value["_type"] != STATEMENT_TYPE or value["predicateType"] != PREDICATE_TYPE:
        raise ValueError("its type is not a model signature 1.0")
    (subject,) = value["subject"]
    kind = value["predicate"]["serialization"]
    if (kind["method"], kind["hash_type"]) != ("files", "sha256"):
        raise ValueError("it does not list whole files with SHA-256")
    resources = value["predicate"]["resources"]
    if not isinstance(resources, list) or len(resources) > MAX_FILES:
        raise ValueError("it lists no files, or too many")
    digests: dict[str, str] = {}
    for resource in resources:
        name, digest = resource["name"], resource["digest"]
        if resource["algorithm"] != "sha256" or not SHA256.fullmatch(digest):
            raise ValueError(f"{name!r} has no SHA-256")
        check_member_name(name)
        digests[name] = digest
    check_distinct(resource["name"] for resource in resources)
    total = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests.values())).hexdigest()
    if subject["digest"]["sha256"] != total:
        raise ValueError("its total digest does not match")
    return Statement(name=str(subject["name"]), digests=digests)
