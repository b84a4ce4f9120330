"""The Hub on loopback, with what publishing needs: repositories, branches, preupload, LFS batch, uploads, commits."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))  # beside the tests of fetch

from hub_server import GOOD_TOKEN, Handler, HubServer, Repo, blob_id, is_lfs, sha256


class WritingHandler(Handler):
    """One request; writes need the good token, uploads to the storage must come without it."""

    hub: ClassVar[WritableHub]  # type: ignore[assignment]

    def do_POST(self) -> None:
        self.write()

    def do_PUT(self) -> None:
        self.write()

    def write(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.log.append((self.command, path, headers))
        parts = [unquote(part) for part in path.strip("/").split("/")]
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if parts[0] == "storage":
            self.store(parts[1], body, token)
        elif token != GOOD_TOKEN:
            self.refuse(401 if not token else 403, "Unauthorized")
        elif parts == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            self.answer({"errors": [], "warnings": []})
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            self.batch(json.loads(body))
        else:
            self.change("/".join(parts[2:4]), parts[4], parts[5], body)

    def answer(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.hub.repos:
            self.refuse(409, "Conflict")
            return
        self.hub.repos[name] = Repo(private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        self.hub.repos[name].commit({".gitattributes": b"*.bin filter=lfs\n"})
        self.answer({"url": f"{self.hub.endpoint}/{name}"})

    def batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for thing in wanted["objects"]:
            href = f"http://localhost:{self.hub.port}/storage/{thing['oid']}"
            missing = thing["oid"] not in self.hub.stored and self.hub.blob(thing["oid"]) is None
            objects.append(thing | ({"actions": {"upload": {"href": href}}} if missing else {}))
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, digest: str, body: bytes, token: str) -> None:
        if self.hub.upload_errors:
            self.hub.upload_errors -= 1
            self.reply(503)
        elif token or sha256(body) != digest:
            self.reply(400)
        else:
            self.hub.stored[digest] = body
            self.reply(200)

    def change(self, name: str, verb: str, revision: str, body: bytes) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self.refuse(404, "RepoNotFound")
        elif verb == "branch":
            known = revision in repo.branches
            if not known:
                repo.branches[revision] = repo.branches["main"]
            self.reply(409 if known else 200)
        elif verb == "preupload":
            there = repo.commits[repo.branches[revision]]
            files = [self.mode(file["path"], there) for file in json.loads(body)["files"]]
            self.answer({"files": files})
        elif verb == "commit":
            self.commit(name, revision, [json.loads(line) for line in body.splitlines()])
        else:
            self.reply(404)

    @staticmethod
    def mode(path: str, there: dict[str, bytes]) -> dict[str, Any]:
        oid = None
        if path in there:
            oid = sha256(there[path]) if is_lfs(path) else blob_id(there[path])
        return {"path": path, "uploadMode": "lfs" if is_lfs(path) else "regular", "shouldIgnore": False, "oid": oid}

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        repo = self.hub.repos[name]
        head, *changes = lines
        if head["value"].get("parentCommit") not in (None, repo.branches[branch]):
            self.refuse(412, "Conflict")
            return
        files = dict(repo.commits[repo.branches[branch]])
        for change in changes:
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                content = self.hub.stored.get(value["oid"]) or self.hub.blob(value["oid"])
                assert content is not None
                files[value["path"]] = content
            else:
                del files[value["path"]]
        self.hub.committed.append(changes)
        oid = repo.commit(files, branch)
        self.answer({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}", "commitOid": oid, "success": True})


class WritableHub(HubServer):
    """`stored`: what was uploaded; `committed`: the changes of each commit."""

    handler_class = WritingHandler

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.committed: list[list[dict[str, Any]]] = []
        self.upload_errors = 0
        super().__init__()
