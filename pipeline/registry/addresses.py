"""What the user writes for a place: ``hf://org/name@rev``, ``oci://host/name:tag``, ``https://…`` or a directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from ..errors import UsageError

Kind = Literal["hub", "oci", "web", "directory"]
VERSION = re.compile(r"[0-9a-f]{32}")
HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
OCI = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?)/"
    r"(?P<name>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
LOGIN = re.compile(r"(?<=://)[^/\s]*@")
QUERY = re.compile(r"[?#]\S*")
DEFAULT_TAG = "latest"
NEXT_STEP = "Write hf://org/name@rev, oci://host/name:tag, https://host/path, or a directory."


@dataclass(frozen=True, kw_only=True)
class Address:
    """A place for packages.

    Attributes:
        place: ``org/name``, ``host/name``, a URL without trailing slash, or a directory.
        revision: a Hub revision, an OCI tag or digest, or the version of a directory; None = the newest.
        name: fit for a directory's name.
    """

    kind: Kind
    place: str
    revision: str | None
    name: str

    def __str__(self) -> str:
        """As it may be shown: without user, password or query."""
        if self.kind == "web":
            return without_secrets(self.place)
        prefix = {"hub": "hf://", "oci": "oci://"}.get(self.kind, "")
        return prefix + self.place


def without_secrets(url: str) -> str:
    """A URL without what may be secret in it: login, query, fragment; also one that is none, or a chain of several."""
    return QUERY.sub("", LOGIN.sub("", url))


def parse(text: str) -> Address:
    """Read an address. Raises UsageError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _directory(text)
    if scheme == "hf" and (match := HUB.fullmatch(rest)):
        return Address(kind="hub", place=match[1], revision=match[2], name=match[1].rpartition("/")[2])
    if scheme == "oci" and (match := OCI.fullmatch(rest)) and _has_host(f"https://{match['host']}"):
        place = f"{match['host']}/{match['name']}"
        revision = match["digest"] or match["tag"] or DEFAULT_TAG
        return Address(kind="oci", place=place, revision=revision, name=match["name"].rpartition("/")[2])
    if scheme in ("http", "https") and _has_host(text):
        return _web(text)
    raise UsageError(f"{without_secrets(text)!r} is no place for packages.", NEXT_STEP)


def _has_host(url: str) -> bool:
    """Whether a URL names a host that can be asked for, at a port that can be."""
    import httpx

    try:
        port = urlsplit(url).port  # refuses what is no number, or too large
        host = httpx.URL(url).host
        host.encode("idna")  # as the name server will be asked
    except (httpx.InvalidURL, ValueError):
        return False
    return bool(host) and port != 0


def _web(text: str) -> Address:
    place, revision = _split_version(text.rstrip("/"))
    place = place.rstrip("/")
    if urlsplit(place).query or urlsplit(place).fragment:
        raise UsageError(f"{without_secrets(place)} has a query: files below it would have no address.", NEXT_STEP)
    name = urlsplit(place).path.rpartition("/")[2] or str(urlsplit(place).hostname)
    return Address(kind="web", place=place, revision=revision, name=name)


def _directory(text: str) -> Address:
    if not text or "\0" in text:
        raise UsageError("an empty string is no place for packages.", NEXT_STEP)
    place, revision = _split_version(text)
    return Address(kind="directory", place=place, revision=revision, name=Path(place).absolute().name)


def _split_version(text: str) -> tuple[str, str | None]:
    place, _, version = text.rpartition("@")
    return (place, version) if place and VERSION.fullmatch(version) else (text, None)
