"""A static web server on loopback that honours Range as RFC 9110 says, and all the ways in which servers do not."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit


@dataclass
class Faults:
    """What goes wrong, for files whose path ends with `only`.

    Attributes:
        cuts: the next transfers break off after so many bytes each.
        stalls: the next transfers fall silent after so many bytes each.
        lie_bytes: added to Content-Length.
        range_shift: a 206 answer begins so many bytes too late, while claiming to be right.
        wrong_range: a 206 answer says that it begins elsewhere.
        changes: contents that replace the file's after its first transfer was begun.
        errors: the next requests are answered with these statuses.
        endless: the body goes on after the file's end, without a length.
    """

    only: str = ""
    cuts: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    ignore_range: bool = False
    no_validator: bool = False
    weak_etag: bool = False
    ignore_if_range: bool = False
    lie_bytes: int = 0
    range_shift: int = 0
    wrong_range: bool = False
    corrupt: int = 0
    endless: bool = False
    gzip: bool = False
    changes: bytes | None = None
    login: str = ""
    redirect_to: str = ""


class FileServer:
    """Serves a directory on a thread of its own until `close`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults = Faults()
        self.log: list[tuple[str, dict[str, str]]] = []
        self.pause_s = 0.0  # after every 256 kB: a network that takes time
        self.changed: dict[str, bytes] = {}
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"site": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def requests(self, suffix: str = "") -> list[dict[str, str]]:
        """Headers of every request whose path ends so."""
        return [headers for path, headers in self.log if path.endswith(suffix)]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    site: ClassVar[FileServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.site.log.append((path, headers))
        faults = self.site.faults if path.endswith(self.site.faults.only) else Faults()
        if faults.login and headers.get("authorization") != "Basic " + base64.b64encode(faults.login.encode()).decode():
            self.status(401, {"WWW-Authenticate": 'Basic realm="toys"'})
        elif faults.redirect_to:
            self.status(302, {"Location": faults.redirect_to + self.path})
        elif faults.errors:
            self.status(faults.errors.pop(0))
        elif (file := self.site.root / path.lstrip("/")).is_file():
            self.serve(self.site.changed.get(path, file.read_bytes()), headers, faults)
            if faults.changes is not None:
                self.site.changed[path] = faults.changes
        else:
            self.status(404)

    def status(self, code: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": "0"} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def serve(self, content: bytes, asked: dict[str, str], faults: Faults) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        if faults.weak_etag:
            etag = "W/" + etag
        start = self.first_byte(content, asked, etag, faults)
        if start is None:
            self.status(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        body = bytearray(content[start + (faults.range_shift if start else 0) :])
        if faults.corrupt and body:
            faults.corrupt -= 1
            body[len(body) // 2] ^= 1
        self.send_response(206 if start else 200)
        told = {"Content-Length": str(len(content) - start + faults.lie_bytes)}
        if faults.endless:
            told = {"Connection": "close"}
        if not faults.no_validator:
            told["ETag"] = etag
        if start:
            first = start + 7 if faults.wrong_range else start
            told["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if faults.gzip:
            told["Content-Encoding"] = "gzip"
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.send_body(bytes(body), faults)

    @staticmethod
    def first_byte(content: bytes, asked: dict[str, str], etag: str, faults: Faults) -> int | None:
        wanted = asked.get("range", "")
        unchanged = faults.ignore_if_range or asked.get("if-range", etag) == etag
        if not wanted or faults.ignore_range or not unchanged:
            return 0
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        return start if start < len(content) else None

    def send_body(self, body: bytes, faults: Faults) -> None:
        if faults.cuts:
            self.write(body[: faults.cuts.pop(0)])
            self.close_connection = True
        elif faults.stalls:
            self.write(body[: faults.stalls.pop(0)])
            self.site.closing.wait(20)
            self.close_connection = True
        elif faults.endless:
            self.close_connection = True
            while not self.site.closing.is_set():
                self.write(body)
        else:
            self.write(body)
            if faults.lie_bytes > 0:
                self.close_connection = True

    def write(self, body: bytes) -> None:
        try:
            for start in range(0, len(body), 1 << 18):
                self.wfile.write(body[start : start + (1 << 18)])
                self.wfile.flush()
                self.site.closing.wait(self.site.pause_s)
        except OSError:
            self.close_connection = True
            self.site.faults.endless = False
