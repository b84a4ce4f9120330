"""One file of a Hub repository: into the Hub's cache, resumable, or out of it.

A large file goes to ``blobs/DIGEST.incomplete`` first. Its name is the digest of what it shall become, so a later run
may continue it whoever began; it counts only when its digest matches.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..contracts import Progress
from ..errors import IntegrityError, NotEnoughDisk
from .digests import Digests
from .hub_errors import InterruptedTransferError

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RemoteFile:
    """A file as the server describes it. `sha256` for LFS files, `blob_id` (git's digest) for all."""

    path: str
    size_bytes: int
    sha256: str | None
    blob_id: str | None


@dataclass(frozen=True)
class Link:
    """Where content is served; on a `foreign` host no token is shown."""

    url: str
    foreign: bool


class Place(Protocol):
    """A repository at a commit."""

    @property
    def repo(self) -> str: ...

    @property
    def commit(self) -> str: ...


def cached_file(repo: str, commit: str, path: str) -> Path | None:
    """A file's path in the Hub's cache, or None."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(repo, path, cache_dir=constants.HF_HUB_CACHE, revision=commit)
    return Path(found) if isinstance(found, str) else None


def blob_path(repo: str, file: RemoteFile) -> Path:
    """Where the Hub's cache keeps an LFS file's content."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--")) / "blobs" / str(file.sha256)


def partial_path(blob: Path) -> Path:
    """Where content lies until it is whole."""
    return blob.with_name(f"{blob.name}.incomplete")


def arrived_bytes(repo: str, file: RemoteFile) -> int:
    """How much of an unfinished LFS file has arrived."""
    partial = partial_path(blob_path(repo, file))
    return partial.stat().st_size if partial.exists() else 0


def remove(path: Path) -> None:
    """Take a damaged file out of the cache: the link and what it points to."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def obtain(place: Place, file: RemoteFile, digests: Digests, progress: Progress) -> Path:
    """A file's path in the cache, after bringing it there if need be. Raises what the Hub's client does."""
    from huggingface_hub import constants, get_hf_file_metadata, get_token, hf_hub_download, hf_hub_url

    if path := cached_file(place.repo, place.commit, file.path):
        progress(1.0, file.path)
        return path
    if file.sha256 is not None:
        url = hf_hub_url(place.repo, file.path, revision=place.commit, endpoint=constants.ENDPOINT)
        metadata = get_hf_file_metadata(url, token=get_token(), endpoint=constants.ENDPOINT)
        if metadata.xet_file_data is None or constants.HF_HUB_DISABLE_XET:
            foreign = not same_host(url, metadata.location)
            resumable(place.repo, file, Link(metadata.location, foreign), digests, progress)
    # Links the blob into the snapshot when it is there; downloads small files and what lies in Xet storage.
    path_text = hf_hub_download(
        place.repo,
        file.path,
        revision=place.commit,
        cache_dir=constants.HF_HUB_CACHE,
        endpoint=constants.ENDPOINT,
        tqdm_class=bar_class(file, progress),
    )
    progress(1.0, file.path)
    return Path(path_text)


def same_host(url: str, other: str) -> bool:
    """Whether two URLs name the same server: a token must not travel to another."""
    from urllib.parse import urlsplit

    return urlsplit(url).netloc == urlsplit(other).netloc


def resumable(repo: str, file: RemoteFile, link: Link, digests: Digests, progress: Progress) -> None:
    """Download one LFS file into the cache's ``blobs``, continuing what is there, under the cache's own lock."""
    from filelock import FileLock

    blob = blob_path(repo, file)
    lock = blob.parents[2] / ".locks" / blob.parents[1].name / f"{blob.name}.lock"
    for directory in (blob.parent, lock.parent):
        directory.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if blob.exists():
            return
        partial = partial_path(blob)
        require_space(blob.parent, file.size_bytes - arrived_bytes(repo, file))
        transfer(link, partial, file, progress)
        accept(partial, blob, file)
        digests.remember(blob, str(file.sha256))


def accept(partial: Path, blob: Path, file: RemoteFile) -> None:
    """Give a finished download its name. Raises IntegrityError, after removing it, when its digest is another."""
    with partial.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        size_bytes = partial.stat().st_size
        partial.unlink()
        raise IntegrityError(
            f"{file.path} arrived with digest {found[:16]}… ({size_bytes:,} bytes), but the Hub promises "
            f"{str(file.sha256)[:16]}… ({file.size_bytes:,} bytes).",
            "It was discarded: run the command again; if it repeats, a proxy alters what it carries.",
        )
    partial.replace(blob)


def transfer(link: Link, partial: Path, file: RemoteFile, progress: Progress) -> None:
    """Append to `partial` until it has the file's size. Raises InterruptedTransferError when it ends before."""
    from huggingface_hub import get_session, get_token
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    headers = build_hf_headers(token=False if link.foreign else get_token())
    headers["Accept-Encoding"] = "identity"
    have = partial.stat().st_size if partial.exists() else 0
    if have >= file.size_bytes:
        return
    if have:
        headers["Range"] = f"bytes={have}-"
    client: Any = get_session()
    with client.stream("GET", link.url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
        hf_raise_for_status(response)
        honoured = response.status_code == 206 and response.headers.get("content-range", "").startswith(
            f"bytes {have}-"
        )
        if have and not honoured:
            have = 0  # the server sends the whole file: appending it would corrupt what is there
        with partial.open("ab" if have else "wb") as stream:
            for chunk in response.iter_bytes():
                stream.write(chunk)
                have += len(chunk)
                progress(min(have / max(file.size_bytes, 1), 1.0), file.path)
    if have < file.size_bytes:
        raise InterruptedTransferError(f"{file.path} ended after {have:,} of {file.size_bytes:,} bytes")


def require_space(directory: Path, wanted_bytes: int) -> None:
    """Raise NotEnoughDisk when a download would not fit."""
    free = shutil.disk_usage(directory).free
    if free < wanted_bytes:
        raise NotEnoughDisk(
            f"{directory} has {free / 1e6:,.0f} MB free, and {wanted_bytes / 1e6:,.0f} MB are to be downloaded.",
            "Free some, or move HF_HOME elsewhere.",
        )


def bar_class(file: RemoteFile, progress: Progress) -> type:
    """A progress bar for the Hub's client that draws nothing and tells `progress` instead."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # the signature is tqdm's
            super().__init__(*args, **{**kwargs, "disable": True})
            self.done = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            self.done += n or 0
            progress(max(0.0, min(self.done / max(file.size_bytes, 1), 1.0)), file.path)
            return None

    return Bar
