"""A cache that several machines share, at any fsspec URL (s3://…, gs://…, file:///mnt/…): finished stages only.

    URL/STAGE/KEY/files/…      what the stage wrote
    URL/STAGE/KEY/entry.json   the record of the local cache, and the SHA-256 of every file; written last

Each machine works in its own local cache (`cache`); what is missing there is looked for here first, and what was made
is copied here. Whoever may write here decides what others build with: protect it like the models themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .codec import write_json
from .errors import IntegrityError
from .manifest import sha256_of
from .names import check_member_name
from .registry.addresses import without_secrets
from .remote import opened, reached

RECORD = "entry.json"
NEXT_STEP = "That is the shared cache; what was made is in the local one."


class SharedCache:
    """Finished stages at a URL."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._files, self._root = opened(self._url)

    def bring(self, stage: str, key: str, work: Path) -> bool:
        """Copy an entry into `work`, where the cache renames it from; False when there is none.

        Raises IntegrityError when a file is not what its record says, NetworkError.
        """
        home = f"{self._root}/{stage}/{key}"
        with reached(self._url, NEXT_STEP):
            if not self._files.exists(f"{home}/{RECORD}"):
                return False
            record = json.loads(self._files.cat_file(f"{home}/{RECORD}"))
            for name, digest in self._listed(record).items():
                there = work / "files" / name
                there.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(f"{home}/files/{name}", str(there))
                if sha256_of(there) != digest:
                    raise IntegrityError(
                        f"{without_secrets(self._url)}/{stage}/{key}/files/{name} is damaged.", "Remove that entry."
                    )
        (work / "files").mkdir(exist_ok=True)
        write_json(work / RECORD, record)
        return True

    def _listed(self, record: Any) -> Mapping[str, str]:
        try:
            return {check_member_name(name): str(record["sha256"][name]) for name in record["files"]}
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{without_secrets(self._url)} holds a damaged record ({error}).", "Remove that entry."
            ) from error

    def keep(self, stage: str, key: str, home: Path) -> None:
        """Copy a finished entry here; its record comes last, so that nobody sees half of it. Raises NetworkError."""
        there = f"{self._root}/{stage}/{key}"
        with reached(self._url, NEXT_STEP):
            if self._files.exists(f"{there}/{RECORD}"):
                return
            record = json.loads((home / RECORD).read_text(encoding="utf-8"))
            digests = {}
            for name in record["files"]:
                self._files.makedirs(f"{there}/files/{name}".rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(home / "files" / name), f"{there}/files/{name}")
                digests[name] = sha256_of(home / "files" / name)
            self._files.makedirs(there, exist_ok=True)
            self._files.pipe_file(f"{there}/{RECORD}", json.dumps(record | {"sha256": digests}).encode())
