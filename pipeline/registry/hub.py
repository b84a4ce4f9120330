"""The Hugging Face Hub, by its own client: tokens, endpoint and uploads are those of every Hub tool.

A repository holds one package at its root; the model card is the package's README.md. Only changed files are uploaded,
in one commit; files of the package that was there before and are not in this one are deleted, others are left alone.
Downloads are kobako's own: straight into place, resumable, several at once, without a second copy in the Hub's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadArtifact, OutputError
from ..fetch import hub_errors
from ..fetch.digests import git_blob_id
from ..fetch.hub_files import COMMIT
from . import transport
from .addresses import Address
from .listing import Listing, Published, RemoteFile, Tell, make_listing
from .names import is_plain

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

MANIFEST = "kobako.json"
SIGNATURE = "model.sig"
MAX_MANIFEST_BYTES = 4 * 2**20
DEFAULT_REVISION = "main"


class HubSource:
    """A model repository at a branch, tag or commit."""

    def __init__(self, address: Address) -> None:
        self._repo = address.place
        self._revision = address.revision
        self._name = address.name
        self._commit = ""
        self._client = transport.new_client()
        self.label = f"{address}@{address.revision}" if address.revision else str(address)

    def listing(self) -> Listing:
        commit, files = hub_errors.retried(
            lambda: ask(self._repo, self._revision), self._repo, self._revision or DEFAULT_REVISION
        )
        self._commit = commit
        return make_listing(self._name, commit, files, self.label)

    def bring(self, file: RemoteFile, partial: Path, tell: Tell) -> None:
        place = _place(self._repo, file.path, self._commit)
        transport.download(self._client, place, file, partial, tell)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _place(repo: str, path: str, commit: str) -> transport.Place:
    from huggingface_hub import constants, get_token, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(repo, path, revision=commit, endpoint=constants.ENDPOINT)
    return transport.Place(url, build_hf_headers(token=get_token()))  # httpx drops the token on the way to another host


def ask(repo: str, revision: str | None) -> tuple[str, list[RemoteFile]]:
    """The commit a revision names, and its files; names that no package may hold are passed over."""
    from huggingface_hub import HfApi, constants

    info = HfApi(endpoint=constants.ENDPOINT).model_info(repo, revision=revision, files_metadata=True)
    if info.sha is None or not COMMIT.fullmatch(info.sha):
        raise BadArtifact(f"the Hub told no commit for {repo}.", "Is HF_ENDPOINT a Hub?")
    files = []
    for sibling in info.siblings or ():
        if sibling.rfilename != ".gitattributes" and is_plain(sibling.rfilename):
            lfs = sibling.lfs
            size = (lfs.size if lfs else sibling.size) or 0
            files.append(
                RemoteFile(
                    path=sibling.rfilename, size_bytes=size, sha256=lfs.sha256 if lfs else None,
                    git_id=None if lfs else sibling.blob_id,
                )
            )  # fmt: skip
    return info.sha, files


class HubDestination:
    """Publishes as one commit on a branch; repository and branch are made when they are not there."""

    def __init__(self, address: Address, *, private: bool = False) -> None:
        if COMMIT.fullmatch(address.revision or ""):
            raise OutputError(f"{address} with a commit cannot be chosen: content makes it.", "Name a branch.")
        self._repo = address.place
        self._branch = address.revision or DEFAULT_REVISION
        self._private = private
        self._client = transport.new_client()
        self.label = f"{address}@{self._branch}"

    def publish(self, package: Path, listing: Listing, tell: Tell) -> Published:
        commit, there = self._prepare()
        changed = [file for file in listing.files.values() if not _same(package, file, there.get(file.path))]
        gone = self._left_over(commit, there) - set(listing.files)
        total = sum(file.size_bytes for file in listing.files.values())
        size = sum(file.size_bytes for file in changed)
        tell(total - size)
        if changed or gone:
            commit = self._commit(package, listing, changed, gone, commit)
            tell(size)
        return Published(
            address=f"hf://{self._repo}@{commit}", version=commit, uploaded=tuple(file.path for file in changed),
            uploaded_bytes=size, kept_bytes=total - size, unchanged=not (changed or gone),
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _prepare(self) -> tuple[str, dict[str, RemoteFile]]:
        """Commit and files of the branch, after making what is missing."""
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        api = HfApi(endpoint=constants.ENDPOINT)

        def see() -> tuple[str, list[RemoteFile]]:
            try:
                return ask(self._repo, self._branch)
            except GatedRepoError:
                raise
            except RepositoryNotFoundError:
                api.create_repo(self._repo, repo_type="model", private=self._private, exist_ok=True)
            except RevisionNotFoundError:
                pass
            if self._branch != DEFAULT_REVISION:
                api.create_branch(self._repo, branch=self._branch, exist_ok=True)
            return ask(self._repo, self._branch)

        commit, files = hub_errors.retried(see, self._repo, self._branch)
        return commit, {file.path: file for file in files}

    def _left_over(self, commit: str, there: dict[str, RemoteFile]) -> set[str]:
        """Files of the package that was published here before, by its manifest; nobody else's."""
        from ..manifest import all_files

        manifest = there.get(MANIFEST)
        if manifest is None or manifest.size_bytes > MAX_MANIFEST_BYTES:
            return set()
        place = _place(self._repo, MANIFEST, commit)

        def read() -> bytes:
            with self._client.stream("GET", place.url, headers=dict(place.headers)) as response:
                transport.check_status(response, self.label, MANIFEST)
                return transport.read_bounded(response, MAX_MANIFEST_BYTES, MANIFEST)

        try:
            named = {
                str(entry["path"])
                for entry in all_files(transport.parse_json(transport.retried(read, self.label), MANIFEST))
            }
        except (
            BadArtifact,
            KeyError,
            TypeError,
            AttributeError,
        ):  # not ours after all: then nothing of it is ours to delete
            return set()
        return (named | {MANIFEST, SIGNATURE}) & set(there)

    def _commit(self, package: Path, listing: Listing, changed: list[RemoteFile], gone: set[str], parent: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=str(package / file.path)) for file in changed
        ]
        operations += [CommitOperationDelete(path_in_repo=path) for path in sorted(gone)]

        def send() -> Any:
            try:
                return HfApi(endpoint=constants.ENDPOINT).create_commit(
                    self._repo, operations, commit_message=f"Publish {listing.name} with kobako",
                    revision=self._branch, parent_commit=parent,
                )  # fmt: skip
            except RuntimeError as error:  # how the Hub's client wraps what went wrong with one of several uploads
                raise error.__cause__ or error from None

        with _without_bars():
            return str(hub_errors.retried(send, self._repo, self._branch).oid)


def _same(package: Path, file: RemoteFile, there: RemoteFile | None) -> bool:
    """Whether the Hub has this very file: by SHA-256 where it is in LFS, by git's digest where it is not."""
    if there is None or there.size_bytes != file.size_bytes:
        return False
    if there.sha256 is not None:
        return there.sha256 == file.sha256
    return there.git_id is not None and there.git_id == git_blob_id(package / file.path)


@contextmanager
def _without_bars() -> Iterator[None]:
    """The Hub's client draws bars of its own; kobako draws one."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
