"""Places at fsspec URLs (s3://…, gs://…, sftp://…), and how errors speak of them: without the passwords in such URLs.

What a driver raises is anything: OSError from most, errors of their own from botocore and paramiko. All of it means
that the place cannot be used, and none of it may end more than the one thing that was wanted there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from .errors import KobakoError, MissingDependency, NetworkError, UsageError
from .registry.addresses import LOGIN, QUERY, without_secrets

SHORTEST_SECRET = 4
"""Shorter ones are not looked for in other text, where they would hit words."""


def without_secrets_of(text: str, *urls: str) -> str:
    """`text` without logins, and without what is secret in `urls`, however a driver quotes it."""
    secrets = {part for url in urls for part in _secrets(url) if len(part) >= SHORTEST_SECRET}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return LOGIN.sub("", text)


def _secrets(url: str) -> set[str]:
    """Login, password, query and its values; as they are written and as they are meant."""
    found = set()
    for login in LOGIN.findall(url):
        found |= {login[:-1], login[:-1].partition(":")[2]}
    for query in QUERY.findall(url):
        found |= {query[1:], *(pair.partition("=")[2] for pair in re.split("[?#&]", query))}
    return found | {unquote(part) for part in found}


def opened(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path there. Raises MissingDependency, UsageError, NetworkError."""
    try:
        import fsspec  # type: ignore[import-untyped]

        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        said = without_secrets_of(str(error), url).rstrip(".")
        raise MissingDependency(
            f"{without_secrets(url)} needs a package: {said}.", "Install what fsspec asks for."
        ) from error
    except ValueError as error:
        said = without_secrets_of(str(error), url).rstrip(".")
        raise UsageError(
            f"{without_secrets(url)} is no place that fsspec knows: {said}.", "Write a URL like s3://… ."
        ) from error
    except Exception as error:
        raise unusable(url, error, "Check the address and the login.") from error
    return files, str(root).rstrip("/")


@contextmanager
def reached(url: str, next_step: str) -> Iterator[None]:
    """Whatever a driver raises is a NetworkError that names the place."""
    try:
        yield
    except KobakoError:
        raise
    except Exception as error:
        raise unusable(url, error, next_step) from error


def unusable(url: str, error: Exception, next_step: str) -> NetworkError:
    """The error for what a driver raised."""
    said = without_secrets_of(str(error), url).rstrip(".") or "no reason given"
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return NetworkError(f"{without_secrets(url)} cannot be used: {kind}{said}.", next_step)
