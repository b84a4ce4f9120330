"""The Hugging Face Hub: a repository id and a revision become a commit, and the files that are needed of it.

Files lie in the Hub's own cache (``HF_HOME``), so that other tools share them; tokens and the endpoint are those of
every Hub tool. kobako keeps one small record per resolved revision, which makes it work without a network later.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..contracts import Progress, Source, SourceFile
from ..errors import IntegrityError, KobakoError, NetworkError, NotFound
from . import hub_errors
from .digests import Digests, git_blob_id, require, write_atomically
from .hub_files import COMMIT, RemoteFile, arrived_bytes, cached_file, obtain, remove
from .local import UNKNOWN_LICENCE, card_licence, spdx
from .select import files_below, is_gguf, needed

DEFAULT_REVISION = "main"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted: a repository, perhaps at a revision. `licence` is the catalogue's, where it is known."""

    repo: str
    revision: str | None
    name: str
    licence: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A repository at a commit: the files that are needed of it, and what the server says they are."""

    repo: str
    commit: str
    licence: str
    files: tuple[RemoteFile, ...]


def fetch(request: Request, downloads: Path, progress: Progress, *, offline: bool) -> Source:
    """The needed files of a repository, verified, in the Hub's cache.

    Raises NotFound, AccessDenied, NetworkError, IntegrityError, UnsupportedModel, NotEnoughDisk.
    """
    from huggingface_hub import constants

    offline = offline or constants.is_offline_mode()
    record = record_path(request, downloads)
    listing = resolve(request, record, offline=offline)
    if offline and not complete(listing):
        raise NetworkError(
            f"{request.repo} is not complete in the Hub's cache, and no network may be used.",
            "Run once without offline.",
        )
    files = bring(listing, Digests(downloads), progress, offline=offline)
    write_record(record, listing)
    return source(request, listing, files)


def resolve(request: Request, record: Path, *, offline: bool) -> Listing:
    """The commit that a revision names, and its files: from the server, else as they were known last."""
    known = read_record(record) or cached_listing(request)
    immutable = COMMIT.fullmatch(request.revision or "") is not None
    if known is not None and (offline or (immutable and complete(known))):
        return known
    if offline:
        raise NetworkError(
            f"{request.repo} was never fetched, and no network may be used.", "Run once without offline."
        )
    try:
        return hub_errors.retried(lambda: ask(request), request.repo, request.revision)
    except NetworkError:
        if known is None or not complete(known):
            raise
        return known


def ask(request: Request) -> Listing:
    """One question to the Hub: commit, licence, and every file's size and digest."""
    from huggingface_hub import HfApi, constants

    info = HfApi(endpoint=constants.ENDPOINT).model_info(request.repo, revision=request.revision, files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    if info.sha is None:
        raise IntegrityError(f"the Hub told no commit for {request.repo}.", "Is HF_ENDPOINT a Hub?")
    files = []
    for path in needed(siblings, f"{request.repo}@{info.sha[:12]}"):
        sibling = siblings[path]
        lfs = sibling.lfs
        size = lfs.size if lfs else sibling.size
        files.append(RemoteFile(path, size or 0, lfs.sha256 if lfs else None, sibling.blob_id))
    licence = info.card_data.get("license") if info.card_data else None
    named = licence if isinstance(licence, str) else None
    if named == "other" and info.card_data:
        named = info.card_data.get("license_name") or named
    return Listing(repo=request.repo, commit=info.sha, licence=spdx(named or UNKNOWN_LICENCE), files=tuple(files))


def bring(listing: Listing, digests: Digests, progress: Progress, *, offline: bool) -> tuple[SourceFile, ...]:
    """Fetch and verify each file of a listing. A file found damaged in the cache is fetched once more."""
    total = max(sum(file.size_bytes for file in listing.files), 1)
    brought: list[SourceFile] = []
    done = 0
    for file in listing.files:
        report = part_of(progress, done / total, file.size_bytes / total)
        there = cached_file(listing.repo, listing.commit, file.path) is not None
        try:
            brought.append(bring_one(listing, file, digests, report))
        except IntegrityError:
            if not there or offline:
                raise
            brought.append(bring_one(listing, file, digests, report))
        done += file.size_bytes
    progress(1.0, f"{listing.repo} at {listing.commit[:12]}")
    return tuple(brought)


def bring_one(listing: Listing, file: RemoteFile, digests: Digests, progress: Progress) -> SourceFile:
    """Fetch one file, or find it in the cache, and verify it. Raises IntegrityError after removing a damaged one."""
    path = hub_errors.retried(
        lambda: obtain(listing, file, digests, progress),
        listing.repo,
        listing.commit,
        lambda: arrived_bytes(listing.repo, file),
    )
    return SourceFile(path=file.path, size_bytes=path.stat().st_size, sha256=verified(path, file, digests))


def verified(path: Path, file: RemoteFile, digests: Digests) -> str:
    """A cached file's SHA-256, after comparison with what the server promised; a damaged file is removed."""
    try:
        found = digests.of(path)
        if file.sha256 is not None:
            require(path, found, file.sha256)
        elif file.blob_id is not None:
            require(path, git_blob_id(path), file.blob_id)
    except IntegrityError:
        remove(path)
        raise
    return found


def part_of(progress: Progress, start: float, share: float) -> Progress:
    """A Progress for one part of a whole."""
    return lambda fraction, text: progress(min(start + share * fraction, 1.0), text)


def source(request: Request, listing: Listing, files: tuple[SourceFile, ...]) -> Source:
    """The Source of a listing whose files are all in the cache."""
    last = cached_file(listing.repo, listing.commit, files[-1].path)
    if last is None:
        raise NotFound(f"{files[-1].path} of {listing.repo} vanished from the Hub's cache.", "Run the command again.")
    return Source(
        name=request.name,
        origin=f"hf://{listing.repo}",
        revision=listing.commit,
        directory=last.parent,
        files=files,
        format="gguf" if is_gguf(file.path for file in files) else "safetensors",
        licence=request.licence or listing.licence,
    )


def complete(listing: Listing) -> bool:
    """Whether every file of a listing is in the Hub's cache."""
    return all(cached_file(listing.repo, listing.commit, file.path) for file in listing.files)


def cached_listing(request: Request) -> Listing | None:
    """What another Hub tool left in the cache, when it holds a usable checkpoint; else None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(request.repo, revision=request.revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None
    try:
        paths = needed(files_below(folder), request.repo)
    except KobakoError:  # an incomplete snapshot is no answer; the server's will be
        return None
    files = []
    for path in paths:
        blob = (folder / path).resolve()
        known = blob.name if len(blob.name) == 64 else None
        files.append(RemoteFile(path, blob.stat().st_size, known, None))
    licence = card_licence(folder / "README.md") or UNKNOWN_LICENCE
    return Listing(repo=request.repo, commit=folder.name, licence=licence, files=tuple(files))


def record_path(request: Request, downloads: Path) -> Path:
    """Where the last answer about a revision is kept."""
    revision = (request.revision or DEFAULT_REVISION).replace("/", "--")
    return downloads / "hub" / request.repo.replace("/", "--") / f"{revision}.json"


def read_record(path: Path) -> Listing | None:
    """A Listing as it was written last, or None."""
    try:
        record = json.loads(path.read_text())
        files = tuple(RemoteFile(**file) for file in record.pop("files"))
        return Listing(**record, files=files)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_record(path: Path, listing: Listing) -> None:
    """Keep a Listing for a time without a network, unless it is what is kept already: the place may be read-only."""
    if read_record(path) == listing:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(listing), indent=1))
