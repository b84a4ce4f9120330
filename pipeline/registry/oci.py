"""An OCI registry: a small client of the distribution specification 1.1, streaming in both directions.

One artifact manifest per version; one layer per *file*, annotated with its path (``org.opencontainers.image.title``, so
that ``oras pull`` writes the same directory) and its target (``dev.kobako.target``, so that an app pulls only its own).
Blobs are named by digest: what a registry has is not sent again, whoever sent it. Why not the ``oras`` package,
and why not a tar archive per target: docs/adr/0010-oci-by-file-and-by-our-own-small-client.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from ..errors import AccessDenied, BadArtifact, IntegrityError, NetworkError, NotFound, OutputError
from . import transport
from .addresses import Address
from .listing import Listing, Published, RemoteFile, Tell, make_listing

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.kobako.package.v1"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
FILE_TYPE = "application/vnd.kobako.file.v1"
TITLE = "org.opencontainers.image.title"
TARGET = "dev.kobako.target"
EMPTY = b"{}"
MAX_MANIFEST_BYTES = 4 * 2**20  # what registries take
UPLOADS_AT_ONCE = 4


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """One repository of one registry."""

    def __init__(self, address: Address, *, plain_http: bool = False) -> None:
        from .login import RegistryAuth, find_login, is_loopback

        host, _, name = address.place.partition("/")
        scheme = "http" if plain_http or is_loopback(host) else "https"
        self.base = f"{scheme}://{host}/v2/{name}"
        self.reference = address.revision or ""
        self.label = str(address)
        self.client = transport.new_client(RegistryAuth(self.base, find_login(host)))

    def get_manifest(self) -> bytes | None:
        """The manifest's bytes, or None when there is none. Raises IntegrityError when a digest names another."""

        def ask() -> bytes | None:
            url = f"{self.base}/manifests/{self.reference}"
            with self.client.stream("GET", url, headers={"Accept": MANIFEST_TYPE}) as response:
                if response.status_code == 404:
                    return None
                transport.check_status(response, self.label, self.reference)
                return transport.read_bounded(response, MAX_MANIFEST_BYTES, f"{self.label}:{self.reference}")

        body = transport.retried(ask, self.label)
        if body is not None and self.reference.startswith("sha256:") and digest_of(body) != self.reference:
            raise IntegrityError(
                f"{self.label} answers {self.reference[:19]}… with another manifest.", "Do not use it."
            )
        return body

    def has(self, digest: str) -> bool:
        """Whether the registry holds a blob."""

        def ask() -> bool:
            response = self.client.head(f"{self.base}/blobs/{digest}")
            if response.status_code == 404:
                return False
            transport.check_status(response, self.label, digest)
            return True

        return transport.retried(ask, self.label)

    def put_blob(self, digest: str, size_bytes: int, chunks: Iterator[bytes]) -> None:
        """Send one blob in one streamed request. Raises Interrupted, NetworkError, AccessDenied."""
        import httpx

        opened = self.client.post(f"{self.base}/blobs/uploads/", headers={"Content-Length": "0"})
        transport.check_status(opened, self.label, "permission to upload")
        where = opened.headers.get("location")
        if not where:
            raise NetworkError(f"{self.label} opens no upload.", "Is this an OCI registry?")
        try:
            url = httpx.URL(urljoin(str(opened.request.url), where)).copy_merge_params({"digest": digest})
        except (httpx.InvalidURL, ValueError) as error:
            raise NetworkError(f"{self.label} names no place for uploads: {error}.", "Is this a registry?") from None
        if url.scheme != "https" and self.base.startswith("https:"):
            raise AccessDenied(
                f"{self.label} wants the upload sent to {url.scheme}://{url.netloc.decode()}, which is not encrypted.",
                "A registry behind a proxy must be told that it is reached by https (X-Forwarded-Proto).",
            )
        headers = {"Content-Length": str(size_bytes), "Content-Type": "application/octet-stream"}
        try:
            sent = self.client.put(url, content=chunks, headers=headers)
        except httpx.StreamConsumed:  # the token ended meanwhile: what was sent cannot be sent again in one breath
            raise transport.Interrupted("the registry asked to log in again") from None
        transport.check_status(sent, self.label, "place for the upload it opened")

    def put_manifest(self, body: bytes) -> None:
        """Let the tag name a manifest."""

        def send() -> None:
            url = f"{self.base}/manifests/{self.reference}"
            response = self.client.put(url, content=body, headers={"Content-Type": MANIFEST_TYPE})
            transport.check_status(response, self.label, f"place for {self.reference}")

        transport.retried(send, self.label)


class OciSource:
    """A tag or digest of a repository."""

    def __init__(self, address: Address, *, plain_http: bool = False) -> None:
        self._registry = Registry(address, plain_http=plain_http)
        self._name = address.name
        self.label = f"{address}:{address.revision}" if ":" not in (address.revision or "") else str(address)

    def listing(self) -> Listing:
        body = self._registry.get_manifest()
        if body is None:
            raise NotFound(f"{self.label} does not exist.", "Check name and tag, or log in if it is private.")
        manifest = transport.parse_json(body, self.label)
        return make_listing(self._name, digest_of(body), _files_of(manifest, self.label), self.label)

    def bring(self, file: RemoteFile, partial: Path, tell: Tell) -> None:
        place = transport.Place(f"{self._registry.base}/blobs/sha256:{file.sha256}", {})
        transport.download(self._registry.client, place, file, partial, tell)

    def close(self) -> None:
        """Close the connections."""
        self._registry.client.close()


def _files_of(manifest: Any, where: str) -> list[RemoteFile]:
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    if not isinstance(layers, list) or manifest.get("artifactType") != ARTIFACT_TYPE:
        raise BadArtifact(f"{where} is not a kobako package.", "Was it published with kobako?")
    return [_file_of(layer, where) for layer in layers]


def _file_of(layer: Any, where: str) -> RemoteFile:
    notes = layer.get("annotations") if isinstance(layer, dict) else None
    if not isinstance(notes, dict) or not str(layer.get("digest", "")).startswith("sha256:"):
        raise BadArtifact(f"{where} has a layer without a file name or digest.", "Was it published with kobako?")
    target = notes.get(TARGET)
    return RemoteFile(
        path=notes.get(TITLE, ""),
        size_bytes=layer.get("size", -1),
        sha256=str(layer["digest"]).removeprefix("sha256:"),
        target=target if isinstance(target, str) else None,
    )


class OciDestination:
    """Publishes under a tag: blobs first, the manifest last."""

    def __init__(self, address: Address, *, plain_http: bool = False) -> None:
        if (address.revision or "").startswith("sha256:"):
            raise OutputError(f"{address} with a digest cannot be chosen: content makes it.", "Publish under a tag.")
        self._registry = Registry(address, plain_http=plain_http)
        self._address = address
        self.label = f"{address}:{address.revision}"

    def publish(self, package: Path, listing: Listing, tell: Tell) -> Published:
        body = manifest_of(listing)
        total = sum(file.size_bytes for file in listing.files.values())
        version = digest_of(body)
        address = f"{self._address}@{version}"
        if self._registry.get_manifest() == body:
            return Published(
                address=address, version=version, uploaded=(), uploaded_bytes=0, kept_bytes=total, unchanged=True
            )
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            blobs = {str(file.sha256): file for file in listing.files.values()}
            sent = list(pool.map(lambda file: self._send(package, file, tell), blobs.values()))
        if not self._registry.has(digest_of(EMPTY)):
            transport.retried(lambda: self._registry.put_blob(digest_of(EMPTY), len(EMPTY), iter([EMPTY])), self.label)
        self._registry.put_manifest(body)
        uploaded = [file for file, new in zip(blobs.values(), sent, strict=True) if new]
        size = sum(file.size_bytes for file in uploaded)
        return Published(
            address=address, version=version, uploaded=tuple(file.path for file in uploaded),
            uploaded_bytes=size, kept_bytes=total - size, unchanged=False,
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
        self._registry.client.close()

    def _send(self, package: Path, file: RemoteFile, tell: Tell) -> bool:
        """Upload one file unless the registry has it; whether it was sent."""
        digest = f"sha256:{file.sha256}"
        if self._registry.has(digest):
            tell(file.size_bytes)
            return False

        def attempt() -> None:
            told = 0

            def chunks() -> Iterator[bytes]:
                nonlocal told
                with (package / file.path).open("rb") as stream:
                    while chunk := stream.read(transport.CHUNK_BYTES):
                        yield chunk
                        tell(len(chunk))
                        told += len(chunk)

            try:
                self._registry.put_blob(digest, file.size_bytes, chunks())
            except BaseException:
                tell(-told)
                raise

        transport.retried(attempt, self.label)
        return True


def manifest_of(listing: Listing) -> bytes:
    """The manifest of a package: the same bytes for the same files."""
    layers = [_layer(file) for file in sorted(listing.files.values(), key=lambda file: file.path)]
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": digest_of(EMPTY), "size": len(EMPTY)},
        "layers": layers,
        "annotations": {TITLE: listing.name},
    }
    return json.dumps(value, separators=(",", ":")).encode()


def _layer(file: RemoteFile) -> Mapping[str, Any]:
    notes = {TITLE: file.path} | ({TARGET: file.target} if file.target else {})
    return {
        "mediaType": FILE_TYPE, "digest": f"sha256:{file.sha256}", "size": file.size_bytes, "annotations": notes
    }  # fmt: skip
