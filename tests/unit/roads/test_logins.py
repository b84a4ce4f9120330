"""Where a registry's login goes, and where it does not; how much of an answer is read. Real servers on loopback."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from kobako.pipeline.errors import AccessDenied, BadArtifact, KobakoError, NetworkError, UsageError
from kobako.pipeline.registry.addresses import parse, without_secrets
from kobako.pipeline.registry.login import Login, RegistryAuth, is_loopback
from kobako.pipeline.registry.oci import Registry
from kobako.pipeline.registry.roads import open_source

from tests.unit.roads.answers import Answer, Answering, AnswerServer, Asked, answering, write_certificate
from tests.unit.roads.oci_registry import write_login

DIGEST = "sha256:" + "0" * 64
ENDLESS = itertools.repeat(b"x" * 65_536)
BASIC = Answer(401, {"WWW-Authenticate": 'Basic realm="toys"'})


@contextmanager
def registry(
    answer: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: Path | None = None
) -> Iterator[tuple[AnswerServer, Registry]]:
    """A server that answers so, and the client of a registry there that one has logged in to."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with answering(answer, certificate) as server:
        # 127.1 is this machine for the resolver and no loopback address for kobako, which therefore speaks TLS to it
        host = server.host.replace("127.0.0.1", "127.1") if certificate else server.host
        write_login(tmp_path / "docker", host)
        made = Registry(parse(f"oci://{host}/team/toy:1"))
        try:
            yield server, made
        finally:
            made.client.close()


def upload(made: Registry) -> None:
    made.put_blob(DIGEST, 2, iter([b"{}"]))


def logins(server: AnswerServer) -> list[str]:
    return [asked.headers["authorization"] for asked in server.log if "authorization" in asked.headers]


@pytest.mark.parametrize("where", ["http://{host}/upload", "//{host}/upload", "/upload"])
def test_a_login_for_https_is_not_sent_in_plain_http(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(asked: Asked) -> Answer:
        if "authorization" not in asked.headers:
            return BASIC
        host = asked.headers["host"]
        return Answer(202, {"Location": where.format(host=host)}) if asked.method == "POST" else Answer(201)

    certificate = write_certificate(tmp_path / "tls.pem", "127.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with registry(answer, tmp_path, monkeypatch, certificate) as (server, made):
        if where.startswith("http:"):
            with pytest.raises(AccessDenied, match="not encrypted"):
                upload(made)
        else:
            upload(made)
            assert server.log[-1].method == "PUT"
    assert logins(server)
    assert all(asked.encrypted for asked in server.log)


@pytest.mark.parametrize(("url", "mine"), [("https://h/x", True), ("https://h:443/x", True), ("http://h/x", False),
                                           ("https://h:444/x", False), ("https://g/x", False)])  # fmt: skip
def test_a_login_is_for_one_scheme_host_and_port(url: str, mine: bool) -> None:
    flow = RegistryAuth("https://h/v2/toy", Login("me", "secret")).auth_flow(httpx.Request("GET", url))
    request = next(flow)
    challenge = httpx.Response(401, headers=BASIC.headers, request=request)
    if mine:
        flow.send(challenge)
    else:
        with pytest.raises(StopIteration):
            flow.send(challenge)
    assert ("authorization" in request.headers) == mine


def test_a_login_does_not_follow_an_upload_to_another_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _: BASIC) as other:

        def answer(asked: Asked) -> Answer:
            return Answer(202, {"Location": f"{other.url}/up"}) if "authorization" in asked.headers else BASIC

        with registry(answer, tmp_path, monkeypatch) as (server, made), pytest.raises(AccessDenied):
            upload(made)
    assert logins(server)
    assert [asked.method for asked in other.log] == ["PUT"]
    assert not logins(other)


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_who_is_redirected_to_has_no_claim_to_the_login(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(lambda _: Answer(body=b'{"token": "t"}')) as thief:
        challenge = {"WWW-Authenticate": f'{scheme} realm="{thief.url}/token",service="x"'}
        with answering(lambda _: Answer(401, challenge)) as store:
            moved = Answer(307, {"Location": f"{store.url}/blob"})
            with registry(lambda _: moved, tmp_path, monkeypatch) as (server, made), pytest.raises(AccessDenied):
                made.has(DIGEST)
    assert len(server.log) == len(store.log) == 1
    assert thief.log == []
    assert not logins(server) + logins(store)


def test_a_registry_of_its_own_token_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _: Answer(body=b'{"token": "t0ken"}')) as tokens:
        challenge = Answer(401, {"WWW-Authenticate": f'Bearer realm="{tokens.url}/token",service="x"'}, b"no" * 9)

        def answer(asked: Asked) -> Answer:
            return Answer() if "authorization" in asked.headers else challenge

        with registry(answer, tmp_path, monkeypatch) as (server, made):
            assert made.has(DIGEST)
            assert made.has(DIGEST)
    assert logins(server) == ["Bearer t0ken"] * 2
    assert logins(tokens) == ["Basic " + base64.b64encode(b"me:secret").decode()]


@pytest.mark.parametrize(
    ("realm", "error"),
    [("https://[x", NetworkError), ("https://h:abc/x", NetworkError), ("https://xn--a/", NetworkError),
     ("http://127.0.0.1.evil.example/x", AccessDenied), ("ftp://127.0.0.1/x", AccessDenied), ("", AccessDenied)],
)  # fmt: skip
def test_a_place_for_tokens_that_is_none(
    realm: str, error: type[KobakoError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenge = Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'})
    with registry(lambda _: challenge, tmp_path, monkeypatch) as (_, made), pytest.raises(error):
        made.has(DIGEST)


@pytest.mark.parametrize("where", ["http://[x", "http://h:abc/x", "http://a..b/x"])
def test_a_place_for_uploads_that_is_none(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kobako.pipeline.registry.transport import retried

    opened = Answer(202, {"Location": where})
    with registry(lambda _: opened, tmp_path, monkeypatch) as (_, made), pytest.raises(NetworkError):
        retried(lambda: upload(made), made.label)


def test_what_is_this_machine() -> None:
    for host in ("localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:5000"):
        assert is_loopback(host), host
    for host in ("127.0.0.1.evil.example", "127.evil.example:5000", "127.1", "[x", "h:abc", "10.0.0.1", ""):
        assert not is_loopback(host), host


@pytest.mark.parametrize(
    "text",
    ["https://[x", "https://h:abc/x", "https://h:99999/x", "https://h:0/x", "https://[::1", "https://a..b/x",
     "https://me:hunter2@[x/y", "https://xn--a/x", "oci://h:99999/a", "oci://a..b/c", "oci://[::::]/a"],
)  # fmt: skip
def test_a_host_that_cannot_be_is_the_users_mistake(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in without_secrets(text)


def test_a_redirect_to_a_host_that_cannot_be() -> None:
    with answering(lambda _: Answer(302, {"Location": "http://a..b/index.json"})) as server:
        source = open_source(f"{server.url}/toy")
        with pytest.raises(NetworkError):
            source.listing()
        source.close()


def test_an_index_that_is_not_encoded_as_it_claims() -> None:
    with answering(lambda _: Answer(200, {"Content-Encoding": "gzip"}, b"{}" * 99)) as server:
        source = open_source(f"{server.url}/toy")
        with pytest.raises(BadArtifact, match="not the gzip it claims to be"):
            source.listing()
        source.close()


def test_an_index_may_be_compressed() -> None:
    index = {"format_version": "1.0", "name": "toy", "latest": "0" * 32, "versions": {"0" * 32: {"files": []}}}
    packed = gzip.compress(json.dumps(index).encode())
    with answering(lambda _: Answer(200, {"Content-Encoding": "gzip"}, packed)) as server:
        source = open_source(f"{server.url}/toy")
        assert source.listing().name == "toy"
        source.close()


@pytest.mark.parametrize("status", [302, 401, 404])
def test_what_nobody_looks_at_is_not_read_to_its_end(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endless redirects, challenges and refusals; and an upload whose opening is answered without end."""

    def answer(asked: Asked) -> Answer:
        known = "authorization" in asked.headers or asked.path.endswith("/moved")
        headers = {"Location": f"http://{asked.headers['host']}/moved"} if status == 302 else dict(BASIC.headers)
        if asked.method == "POST":
            return Answer(202, {"Location": "/up"}, ENDLESS)
        return Answer(body=b"{}") if known else Answer(status, headers, ENDLESS)

    with registry(answer, tmp_path, monkeypatch) as (server, made):
        assert made.get_manifest() == (None if status == 404 else b"{}")
        if status == 401:
            upload(made)
    assert server.sent_bytes < 64 * 2**20  # what the kernel's buffers take; left alone, it never ends
