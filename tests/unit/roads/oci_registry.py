"""Debian's docker-registry on loopback: open, with passwords, or with tokens of a token service."""

from __future__ import annotations

import base64
import datetime
import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[3]
USER, PASSWORD = "me", "secret"
# htpasswd -bnBC 5 me secret
HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
Access = Literal["open", "basic", "token"]


def program() -> str | None:
    """docker-registry: installed, or unpacked by scripts/install."""
    unpacked = ROOT / ".cache" / "docker-registry" / "usr" / "bin" / "docker-registry"
    return shutil.which("docker-registry") or (str(unpacked) if unpacked.is_file() else None)


class OciRegistry:
    """The registry as a process of its own until `close`. `blobs`: where it keeps what was pushed."""

    def __init__(self, home: Path, access: Access = "open") -> None:
        home.mkdir(parents=True)
        self.home = home
        self.tokens = TokenService(home) if access == "token" else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        (home / "htpasswd").write_text(HTPASSWD)
        (home / "config.yml").write_text(json.dumps(self._config(access)))  # JSON is YAML
        self.log = home / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(program()), "serve", str(home / "config.yml")], stdout=log, stderr=subprocess.STDOUT
            )
        self._wait()

    def _config(self, access: Access) -> dict[str, Any]:
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.home / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.host},
        }
        if access == "basic":
            config["auth"] = {"htpasswd": {"realm": "toys", "path": str(self.home / "htpasswd")}}
        if self.tokens:
            config["auth"] = {
                "token": {
                    "realm": self.tokens.url, "service": "toys", "issuer": "toys",
                    "rootcertbundle": str(self.tokens.certificate_file),
                }
            }  # fmt: skip
        return config

    def _wait(self) -> None:
        host, _, port = self.host.partition(":")
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(self.log.read_text())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        if self.tokens:
            self.tokens.close()

    def blobs(self) -> set[str]:
        """Digests of everything that is stored."""
        return {path.parent.name for path in (self.home / "data").rglob("blobs/sha256/*/*/data")}

    def requests(self, method: str, part: str = "") -> list[str]:
        """Access log lines of a method whose path has `part`."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if f'"{method} ' in line and part in line]

    def manifest(self, name: str, tag: str) -> dict[str, Any]:
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        with urlopen(Request(f"http://{self.host}/v2/{name}/manifests/{tag}", headers=accept)) as answer:
            value: dict[str, Any] = json.loads(answer.read())
            return value


def write_login(directory: Path, host: str, user: str = USER, password: str = PASSWORD) -> None:
    """What ``docker login`` leaves behind."""
    directory.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenService:
    """Signs tokens as the distribution project's token specification says, for those who know the password."""

    def __init__(self, home: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.x509.oid import NameOID

        self.key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "toys")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
            .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip
        self.certificate_file = home / "token.pem"
        self.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.issued: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (TokenHandler,), {"service": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, scope: str) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        kind, name, actions = scope.split(":") if scope else ("", "", "")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}] if scope else []
        now = int(time.time())
        claims = {
            "iss": "toys", "sub": USER, "aud": "toys", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": uuid.uuid4().hex, "access": access,
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self.der).decode()]}
        body = _b64(json.dumps(head).encode()) + "." + _b64(json.dumps(claims).encode())
        signature = self.key.sign(body.encode(), padding.PKCS1v15(), hashes.SHA256())
        self.issued.append(f"{body}.{_b64(signature)}")
        return self.issued[-1]


class TokenHandler(BaseHTTPRequestHandler):
    """One request for a token."""

    service: ClassVar[TokenService]

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = self.headers.get("Authorization") == f"Basic {login}"
        scope = parse_qs(urlsplit(self.path).query).get("scope", [""])[0]
        body = json.dumps({"token": self.service.token(scope)} if known else {"details": "who are you?"}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
