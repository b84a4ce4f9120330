"""HTTP as all roads use it: bounded answers, retries, and downloads that continue only where that is safe.

A file arrives at ``NAME.part``; beside it ``NAME.part.tag`` keeps the validator (strong ETag or date) that the server
gave. A later attempt continues only when the server honours Range, its validator is unchanged and its length is what
was promised; otherwise the file begins anew. No more bytes are ever written than were promised.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from ..errors import AccessDenied, BadArtifact, IntegrityError, KobakoError, NetworkError, NotFound, UsageError
from .addresses import without_secrets
from .listing import RemoteFile, Tell

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

TIMEOUT_S = 30.0
ATTEMPTS = 4
MOST_ATTEMPTS = 200  # of one file, however much arrives between them
FIRST_WAIT_S = 0.5
CHUNK_BYTES = 1 << 20
HINT = "What arrived is kept: the same command continues from there."


class Interrupted(Exception):
    """The other side broke off, or cannot be reached just now: worth another attempt."""


@dataclass(frozen=True)
class Place:
    """Where one file's bytes are served, and what must be sent along to be let in."""

    url: str
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Place({without_secrets(self.url)})"


def new_client(auth: httpx.Auth | None = None) -> httpx.Client:
    """A client that follows redirects, and forgets credentials on the way to another host."""
    from . import client

    return client.make(TIMEOUT_S, auth)


def web_login(url: str) -> httpx.Auth | None:
    """The login for a web server: what its URL holds, else what ``.netrc`` does. Raises UsageError for a broken one."""
    import netrc

    import httpx

    parts = urlsplit(url)
    if parts.username is not None:
        return httpx.BasicAuth(unquote(parts.username), unquote(parts.password or ""))
    try:
        return httpx.NetRCAuth()
    except OSError:  # there is none
        return None
    except netrc.NetrcParseError as error:
        raise UsageError(f".netrc, line {error.lineno}: {error.msg}.", "Correct it, or set NETRC.") from None


def retried(action: Callable[[], T], label: str, arrived: Callable[[], int] = lambda: 0) -> T:
    """Run `action`, again after passing faults, with growing pauses.

    `arrived` counts bytes: while it grows between attempts, attempts are counted anew.
    Raises NetworkError when the attempts are used up, and what `action` raises.
    """
    import httpx

    attempt, have = 1, arrived()
    for _ in range(MOST_ATTEMPTS):
        try:
            return action()
        except (Interrupted, httpx.TransportError) as error:
            grown, have = arrived() > have, arrived()
            attempt = 1 if grown else attempt + 1
            if attempt > ATTEMPTS:
                raise _unreachable(label, error) from None  # its traceback may show headers
        except httpx.TooManyRedirects:
            raise NetworkError(f"{label} redirects in a circle.", "Check the address.") from None
        except (httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: a host that no name server is asked for
            raise NetworkError(f"{label} leads to an address that is none: {error}.", "Check the address.") from None
        time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))
    raise NetworkError(f"{label} broke off {MOST_ATTEMPTS} times.", HINT)


def _unreachable(label: str, error: Exception) -> NetworkError:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return NetworkError(f"{label} sent nothing for {TIMEOUT_S:.0f} s, again and again.", HINT)
    reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
    return NetworkError(f"{label} cannot be reached or breaks off: {reason}.", HINT)


def check_status(response: httpx.Response, label: str, what: str) -> None:
    """Raise what a status means: NotFound, AccessDenied, Interrupted (429, 5xx), NetworkError; nothing for 2xx."""
    status = response.status_code
    if response.is_success:
        return
    if status == HTTPStatus.NOT_FOUND:
        raise NotFound(f"{label} has no {what}.", "Check the address, and that the package was published there.")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise AccessDenied(f"{label} refuses {what} to you (HTTP {status}).", "Log in where this registry expects it.")
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT) or status >= 500:
        raise Interrupted(f"HTTP {status}")
    raise NetworkError(f"{label} answered HTTP {status} for {what}.", "Is this the right server?")


def read_bounded(response: httpx.Response, limit_bytes: int, what: str) -> bytes:
    """A body of at most `limit_bytes`. Raises BadArtifact when it is longer, or not encoded as it claims to be."""
    import httpx

    body = bytearray()
    try:
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > limit_bytes:
                raise BadArtifact(f"{what} is larger than {limit_bytes:,} bytes.", "This is not a kobako source.")
    except httpx.DecodingError as error:
        encoding = response.headers.get("content-encoding", "")
        raise BadArtifact(f"{what} is not the {encoding} it claims to be: {error}.", "Fix the server.") from None
    return bytes(body)


def parse_json(body: bytes, what: str) -> Any:
    """A JSON value. Raises BadArtifact."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"{what} is not JSON: {str(error)[:80]}.", "This is not a kobako source.") from error


def tag_path(partial: Path) -> Path:
    """Where the validator of a partial file is kept."""
    return partial.with_name(partial.name + ".tag")


def discard(partial: Path) -> None:
    """Forget a partial file."""
    partial.unlink(missing_ok=True)
    tag_path(partial).unlink(missing_ok=True)


def download(client: httpx.Client, place: Place, file: RemoteFile, partial: Path, tell: Tell) -> None:
    """Bring one file to `partial`. Raises Interrupted, IntegrityError, NotFound, AccessDenied, httpx.TransportError."""
    have = partial.stat().st_size if partial.exists() else 0
    if have == file.size_bytes and partial.exists():
        return
    validator = _read_tag(partial)
    if have > file.size_bytes or (have and not validator):
        discard(partial)
        tell(-have)
        have = 0
    headers = {"Accept-Encoding": "identity", **place.headers}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    label = without_secrets(place.url)
    with client.stream("GET", place.url, headers=headers) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            discard(partial)
            tell(-have)
            raise Interrupted("HTTP 416: the file is not what it was")
        check_status(response, label, file.path)
        if have and not _continues(response, have, file, validator):
            discard(partial)
            tell(-have)
            if response.status_code == HTTPStatus.PARTIAL_CONTENT:
                raise Interrupted("the server continued with something else")
            have = 0
        _check_length(response, have, file, label)
        _write(response, partial, have, file, tell)


def _continues(response: httpx.Response, have: int, file: RemoteFile, validator: str) -> bool:
    """Whether what comes is the rest of what is here: the very bytes after it, of a file that has not changed."""
    expected = f"bytes {have}-{file.size_bytes - 1}/{file.size_bytes}"
    return (
        response.status_code == HTTPStatus.PARTIAL_CONTENT
        and response.headers.get("content-range", "") == expected
        and _validator(response) == validator
    )


def _check_length(response: httpx.Response, have: int, file: RemoteFile, label: str) -> None:
    """Refuse a file of another size before it is downloaded."""
    told = response.headers.get("content-length", "")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise IntegrityError(f"{label} sends {file.path} encoded although it was asked not to.", "Fix the server.")
    if told.isdigit() and int(told) != file.size_bytes - have:
        raise IntegrityError(
            f"{label} has {int(told) + have:,} bytes where {file.size_bytes:,} were promised.",
            "It may have been published anew just now: run the command again.",
        )


def _write(response: httpx.Response, partial: Path, have: int, file: RemoteFile, tell: Tell) -> None:
    with partial.open("ab" if have else "wb") as out:
        if not have:  # old bytes are gone, new ones not here: a kill now leaves nothing that would be continued wrongly
            tag_path(partial).write_text(_validator(response), encoding="utf-8")
        # Chunks as they come: collected into larger ones, the last would be lost when the other side breaks off.
        for chunk in response.iter_raw():
            have += len(chunk)
            if have > file.size_bytes:
                raise IntegrityError(f"{file.path} does not end after {file.size_bytes:,} bytes.", "Fix the server.")
            out.write(chunk)
            tell(len(chunk))
    if have < file.size_bytes:
        raise Interrupted(f"{file.path} ended after {have:,} of {file.size_bytes:,} bytes")


def _validator(response: httpx.Response) -> str:
    """What tells whether a file has changed: a strong ETag, else its date; empty when there is neither."""
    etag = str(response.headers.get("etag", ""))
    if etag and not etag.startswith("W/"):
        return etag[:512]
    return str(response.headers.get("last-modified", ""))[:512] if not etag else ""


def _read_tag(partial: Path) -> str:
    try:
        return tag_path(partial).read_text(encoding="utf-8")[:512]
    except (OSError, ValueError):
        return ""


def passing(error: Exception) -> bool:
    """Whether an error is one that another attempt may mend."""
    import httpx

    return isinstance(error, Interrupted | httpx.TransportError) and not isinstance(error, KobakoError)
