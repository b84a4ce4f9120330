"""An OCI registry, Debian's docker-registry on loopback: layers by file, blobs once, logins, nothing leaked."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kobako.pipeline.errors import BadArtifact, IntegrityError, NotFound, OutputError
from kobako.pipeline.publish import PublishRequest, publish
from kobako.pipeline.pull import Pulled, PullRequest, pull
from kobako.pipeline.registry.listing import Published
from kobako.pipeline.registry.oci import TARGET, digest_of
from kobako.pipeline.registry.roads import open_destination, open_source
from kobako.pipeline.sets.check import sign_set, verify_set
from kobako.pipeline.sets.make import make_set, parse_assignment
from kobako.pipeline.sets.travel import publish_any, pull_any
from kobako.pipeline.sign import load_key

from tests.unit.roads import oci_registry
from tests.unit.roads.oci_registry import OciRegistry, write_login
from tests.unit.roads.packages import (
    Signer,
    Watching,
    contents,
    expected,
    leftovers,
    make_package,
    noise,
    rewrite,
    target_files,
    task,
)

pytestmark = pytest.mark.skipif(
    oci_registry.program() is None, reason="docker-registry is not installed (scripts/install says why)"
)
NAME = "team/toy"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciRegistry]:
    running = OciRegistry(tmp_path_factory.mktemp("registry") / "open")
    yield running
    running.close()


def send(registry: OciRegistry, package: Path, signer: Signer, tag: str = "1.0", name: str = NAME) -> Published:
    place = open_destination(f"oci://{registry.host}/{name}:{tag}")
    try:
        return publish(PublishRequest(package=package, trust=signer.trust), place, Watching())
    finally:
        place.close()


def bring(address: str, out: Path, signer: Signer, *targets: str) -> Pulled:
    road = open_source(address)
    try:
        return pull(road, PullRequest(targets=targets, trust=signer.trust, out=out), Watching())
    finally:
        road.close()


def test_there_and_back(registry: OciRegistry, package: Path, signer: Signer, tmp_path: Path) -> None:
    done = send(registry, package, signer)
    bring(f"oci://{registry.host}/{NAME}:1.0", tmp_path / "out", signer)
    assert contents(tmp_path / "out") == contents(package)
    bring(done.address, tmp_path / "again", signer, "litert")
    assert contents(tmp_path / "again") == expected(package, "litert")
    assert leftovers(tmp_path) == []


def test_an_app_pulls_only_its_own_layers(registry: OciRegistry, package: Path, signer: Signer, tmp_path: Path) -> None:
    send(registry, package, signer)
    before = len(registry.requests("GET", "/blobs/"))
    bring(f"oci://{registry.host}/{NAME}:1.0", tmp_path / "out", signer, "coreml")
    assert contents(tmp_path / "out") == expected(package, "coreml")
    fetched = registry.requests("GET", "/blobs/")[before:]
    layers = registry.manifest(NAME, "1.0")["layers"]
    taken = {layer["digest"] for layer in layers if any(layer["digest"] in line for line in fetched)}
    mine = {digest_of(content): len(content) for content in expected(package, "coreml").values()}
    assert taken == set(mine)
    assert len(fetched) == len(mine)  # each content once, although several files hold it
    foreign = [layer for layer in layers if layer["annotations"].get(TARGET) in ("litert", "executorch")]
    assert len({layer["digest"] for layer in foreign} - set(mine)) == 2


def test_the_artifact_is_what_other_tools_expect(registry: OciRegistry, package: Path, signer: Signer) -> None:
    send(registry, package, signer)
    manifest = registry.manifest(NAME, "1.0")
    assert manifest["schemaVersion"] == 2
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    titles = {layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]}
    assert titles == set(contents(package))


ORAS = """
import sys, oras.client
oras.client.OrasClient(insecure=True).pull(target=sys.argv[1], outdir=sys.argv[2])
"""


@pytest.mark.skipif(importlib.util.find_spec("oras") is None, reason="the oras client is not installed")
def test_the_oras_client_pulls_the_same_directory(
    registry: OciRegistry, package: Path, signer: Signer, tmp_path: Path
) -> None:
    send(registry, package, signer)
    command = [sys.executable, "-c", ORAS, f"{registry.host}/{NAME}:1.0", str(tmp_path / "out")]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    assert contents(tmp_path / "out") == contents(package)


def test_a_set_there_and_back(registry: OciRegistry, signer: Signer, tmp_path: Path) -> None:
    """One member travels with the set, the other stays at an address of its own in the registry."""
    translator = make_package(tmp_path / "translator", name="translator", tasks=[task("translate", "fr", "de")])
    reader = make_package(tmp_path / "reader", target_files(seed=9), name="reader", tasks=[task("chat")])
    there = send(registry, signer.sign(translator), signer, name="team/translator").address
    rows = [parse_assignment(f"translate={there}"), parse_assignment(f"chat={reader}")]
    make_set(tmp_path / "pair", "pair", rows, open_source)
    sign_set(tmp_path / "pair", load_key(signer.private, None, None, ()))
    place = open_destination(f"oci://{registry.host}/team/pair:1")
    try:
        request = PublishRequest(package=tmp_path / "pair", trust=signer.trust)
        assert not publish_any(request, place, Watching()).unchanged
        assert publish_any(request, place, Watching()).unchanged
    finally:
        place.close()
    for _ in range(2):
        road = open_source(f"oci://{registry.host}/team/pair:1")
        try:
            pulling = PullRequest(targets=("litert",), trust=signer.trust, out=tmp_path / "out")
            done = pull_any(road, pulling, Watching(), open_source)
        finally:
            road.close()
    assert (done.unchanged, done.transferred_bytes) == (True, 0)
    assert contents(tmp_path / "out" / "translator") == expected(translator, "litert")
    assert contents(tmp_path / "out" / "reader") == expected(reader, "litert")
    verify_set(tmp_path / "out", signer.trust, ["litert"])


def test_what_the_registry_has_is_not_sent_again(
    registry: OciRegistry, package: Path, signer: Signer, tmp_path: Path
) -> None:
    send(registry, package, signer, name="team/dedup")
    assert send(registry, package, signer, name="team/dedup").unchanged
    before = len(registry.requests("PUT", "/blobs/uploads/"))
    done = send(registry, package, signer, tag="copy", name="team/dedup")
    assert done.uploaded == ()
    new = signer.sign(rewrite(package, tmp_path / "new", {"README.md": b"# newer\n"}))
    done = send(registry, new, signer, tag="2.0", name="team/dedup")
    assert sorted(done.uploaded) == ["README.md", "kobako.json", "model.sig"]
    assert len(registry.requests("PUT", "/blobs/uploads/")) == before + 3


def test_twice_transfers_nothing(registry: OciRegistry, package: Path, signer: Signer, tmp_path: Path) -> None:
    send(registry, package, signer)
    bring(f"oci://{registry.host}/{NAME}:1.0", tmp_path / "out", signer)
    before = len(registry.requests("GET", "/blobs/"))
    assert bring(f"oci://{registry.host}/{NAME}:1.0", tmp_path / "out", signer).unchanged
    assert len(registry.requests("GET", "/blobs/")) == before


def test_a_broken_transfer_is_continued_with_range(
    registry: OciRegistry, package: Path, signer: Signer, tmp_path: Path
) -> None:
    """What a killed pull leaves: a part, and the registry's ETag beside it."""
    done = send(registry, package, signer)
    address = f"oci://{registry.host}/{NAME}:1.0"
    bring(address, tmp_path / "out", signer, "litert")
    content = (package / "litert/model.tflite").read_bytes()
    import hashlib

    digest = hashlib.sha256(content).hexdigest()
    version = hashlib.sha256(done.version.encode()).hexdigest()[:12]
    parts = tmp_path / f".other.{version}.pull" / "parts"
    parts.mkdir(parents=True)
    (parts / digest).write_bytes(content[:250_000])
    (parts / f"{digest}.tag").write_text(f'"sha256:{digest}"')
    again = bring(address, tmp_path / "other", signer, "litert")
    assert contents(tmp_path / "other") == expected(package, "litert")
    total = sum(len(content) for content in expected(package, "litert").values())
    assert again.transferred_bytes <= total - 250_000


def test_a_tampered_blob_is_refused(registry: OciRegistry, package: Path, signer: Signer, tmp_path: Path) -> None:
    own = signer.sign(make_package(tmp_path / "own", target_files(seed=50)))
    send(registry, own, signer, name="team/tampered")
    import hashlib

    digest = hashlib.sha256((own / "litert/model.tflite").read_bytes()).hexdigest()
    stored = next((registry.home / "data").rglob(f"{digest}/data"))
    data = bytearray(stored.read_bytes())
    data[1000] ^= 1
    stored.write_bytes(data)
    with pytest.raises(IntegrityError, match="digest"):
        bring(f"oci://{registry.host}/team/tampered:1.0", tmp_path / "out", signer, "litert")
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_or_no_package(registry: OciRegistry, package: Path, signer: Signer, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        bring(f"oci://{registry.host}/{NAME}:none", tmp_path / "out", signer)
    with pytest.raises(NotFound):
        bring(f"oci://{registry.host}/nobody/nothing", tmp_path / "out", signer)
    with pytest.raises(OutputError, match="digest"):
        open_destination(f"oci://{registry.host}/{NAME}@sha256:{'0' * 64}")
    from kobako.pipeline.registry.addresses import parse
    from kobako.pipeline.registry.oci import EMPTY, MANIFEST_TYPE, Registry, digest_of

    other = Registry(parse(f"oci://{registry.host}/team/image:1"))
    other.put_blob(digest_of(EMPTY), 2, iter([EMPTY]))
    image = {
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(EMPTY), "size": 2},
    }  # fmt: skip
    other.put_manifest(json.dumps(image).encode())
    with pytest.raises(BadArtifact, match="not a kobako package"):
        bring(f"oci://{registry.host}/team/image:1", tmp_path / "out", signer)


@pytest.fixture(params=["basic", "token"])
def private(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OciRegistry]:
    running = OciRegistry(tmp_path / "private", request.param)
    yield running
    running.close()


def test_a_private_registry(
    private: OciRegistry, package: Path, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command line: refused without login, works with docker's, and no secret is printed or kept."""
    environment = os.environ | {"DOCKER_CONFIG": str(tmp_path / "docker"), "HTTPX_LOG_LEVEL": "debug"}

    def kobako(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kobako.pipeline.cli.main", *arguments, "--key", str(signer.public)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    address = f"oci://{private.host}/{NAME}:1.0"
    refused = kobako("publish", str(package), address)
    assert refused.returncode == 4, refused.stderr
    write_login(tmp_path / "docker", private.host, password="wrong-secret")
    wrong = kobako("publish", str(package), address)
    assert wrong.returncode == 4, wrong.stderr
    write_login(tmp_path / "docker", private.host)
    sent = kobako("publish", str(package), address, "--json")
    assert sent.returncode == 0, sent.stderr
    pulled = kobako("pull", address, "--target", "litert", "--out", str(tmp_path / "out"), "--json")
    assert pulled.returncode == 0, pulled.stderr
    assert contents(tmp_path / "out") == expected(package, "litert")
    secrets = ["wrong-secret", "bWU6", *(private.tokens.issued if private.tokens else [])]
    for done in (refused, wrong, sent, pulled):
        assert not any(secret in done.stdout + done.stderr for secret in secrets)
    assert all(b"wrong-secret" not in content for content in contents(tmp_path / "out").values())


def test_a_credential_helper_is_asked(
    tmp_path: Path, package: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = OciRegistry(tmp_path / "private", "basic")
    try:
        helper = tmp_path / "bin" / "docker-credential-toy"
        helper.parent.mkdir()
        helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\": \\"me\\", \\"Secret\\": \\"secret\\"}"\n')
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker" / "config.json").write_text(json.dumps({"credHelpers": {running.host: "toy"}}))
        assert send(running, package, signer).uploaded
    finally:
        running.close()


def test_a_large_layer_streams_both_ways(registry: OciRegistry, signer: Signer, tmp_path: Path) -> None:
    """300 MB through a process whose memory may grow by less than half of that."""
    block = noise(1_000_000)
    files = {"litert": {"litert/model.tflite": b"".join(block[i:] + block[:i] for i in range(300))}}
    big = signer.sign(make_package(tmp_path / "big", files))
    code = (
        "import resource, sys\n"
        "from kobako.pipeline.cli.main import cli\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        "print('grown', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    address = f"oci://{registry.host}/team/big:1"
    for arguments in (["publish", str(big), address], ["pull", address, "--out", str(tmp_path / "out")]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--key", signer.public], capture_output=True, text=True, check=True
        )
        grown_kib = int(done.stdout.rpartition("grown ")[2])
        assert grown_kib < 120 * 1024, done.stdout
    assert (tmp_path / "out/litert/model.tflite").stat().st_size == 300_000_000
