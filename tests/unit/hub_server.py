"""A Hub on loopback: the parts of the Hugging Face Hub's HTTP API that a download uses, and the ways it can fail."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

GOOD_TOKEN = "hf_good"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """A repository: commits with their files, and branches that name commits. Safetensors and GGUF count as LFS."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    licence: str = "apache-2.0"

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit and let a branch name it."""
        listing = json.dumps({path: sha256(content) for path, content in sorted(files.items())})
        commit = hashlib.sha1(f"{len(self.commits)}{listing}".encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit


def is_lfs(path: str) -> bool:
    return path.endswith((".safetensors", ".gguf", ".bin", ".pte", ".tflite"))


@dataclass
class Faults:
    """What goes wrong. `cuts`: the next LFS transfers break off after so many bytes each."""

    cuts: list[int] = field(default_factory=list)
    ignore_range: bool = False
    corrupt: bool = False
    api_errors: int = 0


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.route()

    def do_GET(self) -> None:
        self.route()

    def route(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.log.append((self.command, url.path, headers))
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[:2] == ["api", "models"] and len(parts) == 2:
            wanted = parse_qs(url.query).get("search", [""])[0].lower()
            self.reply(
                200, json.dumps([{"id": name} for name in self.hub.repos if wanted[:5] in name.lower()]).encode()
            )
        elif parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
            self.tree("/".join(parts[2:4]), parts[5])
        elif parts[:2] == ["api", "models"]:
            self.model_info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif parts[0] == "cdn":
            self.content(parts[1])
        elif len(parts) > 4 and parts[2] == "resolve":
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.reply(404)

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.reply(status, json.dumps({"error": code}).encode(), {"X-Error-Code": code, "X-Error-Message": code})

    def model_info(self, name: str, revision: str) -> None:
        if self.hub.faults.api_errors:
            self.hub.faults.api_errors -= 1
            self.reply(503)
            return
        found = self.find(name, revision)
        if found is None:
            return
        repo, commit, files = found
        siblings = [self.sibling(path, content) for path, content in files.items()]
        card = {"license": repo.licence}
        body = {"_id": "1", "id": name, "sha": commit, "siblings": siblings, "cardData": card, "gated": repo.gated}
        self.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def tree(self, name: str, revision: str) -> None:
        """The listing that ``snapshot_download`` asks for."""
        found = self.find(name, revision)
        if found is None:
            return
        entries = []
        for path, content in found[2].items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
            if is_lfs(path):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self.reply(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def sibling(path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob_id(content)}
        if is_lfs(path):
            entry["blobId"] = blob_id(b"a pointer")
            entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
        return entry

    def find(self, name: str, revision: str) -> tuple[Repo, str, dict[str, bytes]] | None:
        """The repository and its files at a revision; else the refusal was sent, as the real Hub words it."""
        repo = self.hub.repos.get(name)
        if repo is None:
            self.refuse(401, "RepoNotFound")  # to the anonymous the Hub does not tell "absent" from "private"
            return None
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo.private and token != GOOD_TOKEN:
            self.refuse(401, "RepoNotFound")
            return None
        if repo.gated and "/resolve/" in self.path and token != GOOD_TOKEN:
            self.refuse(403 if token else 401, "GatedRepo")
            return None
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            self.refuse(404, "RevisionNotFound")
            return None
        return repo, commit, repo.commits[commit]

    def resolve(self, name: str, revision: str, path: str) -> None:
        found = self.find(name, revision)
        if found is None:
            return
        _, commit, files = found
        if path not in files:
            self.refuse(404, "EntryNotFound")
            return
        content = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob_id(content)}"'}
        if is_lfs(path):
            digest = sha256(content)
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            self.reply(302, b"", {**headers, **linked, "Location": f"http://localhost:{self.hub.port}/cdn/{digest}"})
        else:
            self.reply(200, content, headers)

    def content(self, digest: str) -> None:
        """LFS content, with Range, and with the faults that were asked for."""
        whole = self.hub.blob(digest)
        if whole is None:
            self.reply(404)
            return
        faults = self.hub.faults
        if faults.corrupt:
            whole = whole[:-1] + bytes([whole[-1] ^ 0xFF])
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not faults.ignore_range else 0
        headers = {"ETag": f'"{digest}"', "Content-Length": str(len(whole) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if faults.cuts:
            self.wfile.write(whole[start : start + faults.cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(whole[start:])


class HubServer:
    """The server, running on a thread of its own until `close`. LFS content is served under another host name."""

    handler_class: type[Handler] = Handler

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults = Faults()
        self.log: list[tuple[str, str, dict[str, str]]] = []
        handler = type("BoundHandler", (self.handler_class,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def transfers(self) -> list[dict[str, str]]:
        """Headers of every request for LFS content."""
        return [headers for method, path, headers in self.log if method == "GET" and path.startswith("/cdn/")]

    def blob(self, digest: str) -> bytes | None:
        for repo in self.repos.values():
            for files in repo.commits.values():
                for content in files.values():
                    if sha256(content) == digest:
                        return content
        return None
