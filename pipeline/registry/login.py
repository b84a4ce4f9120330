"""Credentials for OCI registries, from where docker, podman and oras keep them; and the token dance of registries.

kobako stores no credentials of its own. ``docker login HOST`` (or podman, or oras) is how one logs in.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import shutil
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from ..errors import AccessDenied, BadArtifact, NetworkError
from . import client, transport

HELPER = re.compile(r"[A-Za-z0-9._-]+")
PARAMETER = re.compile(r'(\w+)="([^"]*)"')
HELPER_TIMEOUT_S = 30.0
MAX_TOKEN_BYTES = 1 << 20


@dataclass(frozen=True)
class Login:
    """A user and a secret, which never shows itself."""

    user: str
    secret: str = field(repr=False)


def is_loopback(host: str) -> bool:
    """Whether a host name (with or without port) is this machine: there, plain HTTP hides nothing from anybody."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:  # a name, of which only "localhost" is this machine; or no host at all
        return False


def config_files() -> Iterator[Path]:
    """Where credentials may lie, the first found wins: podman's variable, docker's directory, podman's runtime file."""
    if chosen := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(chosen)
    yield Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"


def find_login(host: str) -> Login | None:
    """The credentials kept for a registry, or None. Raises AccessDenied when they are there and cannot be used."""
    for path in config_files():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(config, dict) and (found := _from_config(config, host, path)):
            return found
    return None


def _from_config(config: dict[str, Any], host: str, path: Path) -> Login | None:
    helper = (config.get("credHelpers") or {}).get(host) or config.get("credsStore")
    if isinstance(helper, str) and HELPER.fullmatch(helper) and (found := _from_helper(helper, host)):
        return found
    entries = config.get("auths") or {}
    entry = entries.get(host) or entries.get(f"https://{host}") or {}
    if entry.get("identitytoken"):
        raise AccessDenied(
            f"{path} holds an identity token for {host}, which kobako cannot use.", "Log in with a user and a token."
        )
    try:
        user, separator, secret = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except (ValueError, TypeError):
        raise AccessDenied(f"what {path} holds for {host} is damaged.", f"Log in again: docker login {host}.") from None
    return Login(user, secret) if separator else None


def _from_helper(helper: str, host: str) -> Login | None:
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get"], input=host, capture_output=True, text=True, timeout=HELPER_TIMEOUT_S, check=True
        )
        answer = json.loads(done.stdout)
        return Login(answer["Username"], answer["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None  # helpers exit with an error when they hold nothing for this host


class RegistryAuth(httpx.Auth):
    """Answers a registry's challenge: Basic at once, Bearer by its token service; tokens are kept for the run.

    Only where the registry is: the same scheme, host and port. It may send a client anywhere (uploads, redirects), in
    plain HTTP too, and what answers there has no claim to the login.
    """

    def __init__(self, base: str, login: Login | None) -> None:
        self._origin = _origin(httpx.URL(base))
        self._host = httpx.URL(base).netloc.decode()
        self._login = login
        self._header = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See httpx: each yielded request is sent, its response comes back."""
        mine = _origin(request.url) == self._origin
        if mine and self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        # after redirects it is the answer of the last place, which asked for `response.request`
        if response.status_code != 401 or not mine or _origin(response.request.url) != self._origin:
            return
        scheme, _, rest = response.headers.get("www-authenticate", "").partition(" ")
        parameters = dict(PARAMETER.findall(rest))
        if scheme.lower() == "basic" and self._login:
            self._header = _basic(self._login)
        elif scheme.lower() == "bearer" and "realm" in parameters:
            token = self._ask_token(parameters)
            self._header = f"Bearer {token}" if token else ""
        if self._header:
            request.headers["Authorization"] = self._header
            yield request

    def _ask_token(self, parameters: dict[str, str]) -> str:
        """A token for what the challenge names; empty when the service gives none."""
        try:
            realm = httpx.URL(parameters["realm"])
        except (httpx.InvalidURL, ValueError) as error:
            raise NetworkError(f"{self._host} names no place for tokens: {error}.", "Is this a registry?") from None
        if realm.scheme != "https" and not (realm.scheme == "http" and is_loopback(realm.netloc.decode())):
            raise AccessDenied(
                f"{self._host} sends you to {realm.scheme}://{realm.netloc.decode()} for a token, "
                "which is not encrypted.",
                "Do not log in there.",
            )
        query: dict[str, str] = {name: value for name, value in parameters.items() if name in ("service", "scope")}
        headers = {"Authorization": _basic(self._login)} if self._login else {}
        # Not through the flow, which would read any answer whole; and without redirects, which could lead anywhere.
        with (
            client.make(transport.TIMEOUT_S, None, follow_redirects=False) as asking,
            asking.stream("GET", realm, params=query, headers=headers) as answer,
        ):
            return _token(answer) if answer.status_code == 200 else ""


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port, the usual port written out: what credentials belong to."""
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.secret}".encode()).decode()


def _token(answer: httpx.Response) -> str:
    try:
        body = transport.read_bounded(answer, MAX_TOKEN_BYTES, "the token service's answer")
        value = transport.parse_json(body, "the token service's answer")
    except BadArtifact:
        return ""
    token = (value.get("token") or value.get("access_token") or "") if isinstance(value, dict) else ""
    return token if isinstance(token, str) and token.isascii() and token.isprintable() else ""
