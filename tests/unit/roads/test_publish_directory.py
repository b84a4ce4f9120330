"""Publishing into a directory: only sound packages, complete or not at all, nobody else's files touched."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kobako.pipeline.errors import BadArtifact, IntegrityError, NotFound, OutputError, Untrusted, UsageError
from kobako.pipeline.publish import PublishRequest, publish
from kobako.pipeline.pull import PullRequest, pull
from kobako.pipeline.registry.addresses import parse
from kobako.pipeline.registry.listing import Published
from kobako.pipeline.registry.roads import open_destination, open_source
from kobako.pipeline.signature.trust import Trust

from tests.unit.roads.packages import ANYBODY, Signer, Watching, contents, make_package, rewrite


def send(package: Path, place: Path | str, trust: Trust) -> Published:
    return publish(PublishRequest(package=package, trust=trust), open_destination(str(place)), Watching())


def test_the_published_version_is_the_package_itself(place: Path, package: Path) -> None:
    index = json.loads((place / "index.json").read_text())
    assert contents(place / index["latest"]) == contents(package)


def test_twice_sends_nothing(place: Path, package: Path, signer: Signer) -> None:
    before = (place / "index.json").stat().st_mtime_ns
    done = send(package, place, signer.trust)
    assert done.unchanged
    assert done.uploaded_bytes == 0
    assert (place / "index.json").stat().st_mtime_ns == before


def test_only_changed_files_are_written_and_old_versions_stay(
    place: Path, package: Path, signer: Signer, tmp_path: Path
) -> None:
    old = json.loads((place / "index.json").read_text())["latest"]
    new = signer.sign(rewrite(package, tmp_path / "new", {"README.md": b"# newer\n"}))
    done = send(new, place, signer.trust)
    assert sorted(done.uploaded) == ["README.md", "kobako.json", "model.sig"]
    assert contents(place / old) == contents(package)
    model = "litert/model.tflite"
    assert (place / old / model).stat().st_ino == (place / done.version / model).stat().st_ino
    road = open_source(f"{place}@{old}")
    pull(road, PullRequest(targets=(), trust=signer.trust, out=tmp_path / "out"), Watching())
    assert contents(tmp_path / "out") == contents(package)


def test_a_version_that_is_not_there(place: Path) -> None:
    with pytest.raises(NotFound, match="no version"):
        open_source(f"{place}@{'0' * 32}").listing()


def test_a_damaged_version_is_written_again(place: Path, package: Path, signer: Signer) -> None:
    version = json.loads((place / "index.json").read_text())["latest"]
    (place / version / "litert/model.tflite").write_bytes(b"damaged")
    done = send(package, place, signer.trust)
    assert not done.unchanged
    assert contents(place / version) == contents(package)


def test_a_damaged_package_is_not_published(package: Path, signer: Signer, tmp_path: Path) -> None:
    (package / "README.md").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match=r"README\.md"):
        send(package, tmp_path / "there", signer.trust)
    assert not (tmp_path / "there").exists()


def test_a_part_of_a_package_is_not_published(place: Path, signer: Signer, tmp_path: Path) -> None:
    pull(
        open_source(str(place)), PullRequest(targets=("litert",), trust=signer.trust, out=tmp_path / "out"), Watching()
    )
    with pytest.raises(IntegrityError, match="lacks its targets coreml, executorch"):
        send(tmp_path / "out", tmp_path / "there", signer.trust)


def test_an_unsigned_package_is_published_only_when_asked_to(signer: Signer, tmp_path: Path) -> None:
    made = make_package(tmp_path / "toy")
    with pytest.raises(Untrusted):
        send(made, tmp_path / "there", signer.trust)
    assert send(made, tmp_path / "there", ANYBODY).uploaded


def test_a_directory_with_other_things_is_left_alone(package: Path, signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        send(package, tmp_path / "mine", signer.trust)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        send(package, tmp_path / "file", signer.trust)


def test_another_package_is_left_alone(place: Path, package: Path, signer: Signer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    rewrite(package, other, {})
    value = json.loads((other / "kobako.json").read_text()) | {"name": "another"}
    (other / "kobako.json").write_text(json.dumps(value))
    with pytest.raises(OutputError, match="another package"):
        send(signer.sign(other), place, signer.trust)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that nobody may write, root neither."""
    there = tmp_path / "read-only"
    there.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", there], check=False).returncode
    ):
        pytest.skip("only root may mount a read-only file system")
    yield there
    subprocess.run(["umount", "-l", there], check=True)


def test_a_read_only_file_system(read_only: Path, package: Path, place: Path, signer: Signer) -> None:
    with pytest.raises(OutputError, match="Read-only"):
        send(package, read_only / "there", signer.trust)
    with pytest.raises(OutputError, match="Read-only"):
        pull(open_source(str(place)), PullRequest(targets=(), trust=signer.trust, out=read_only / "out"), Watching())


@pytest.mark.parametrize(
    "text",
    ["ftp://host/x", "hf://one", "hf://a/b@", "oci://host", "oci://host/UPPER:1", "https:///x", "", "https://h/a?b=c"],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_addresses() -> None:
    assert parse("hf://org/name").revision is None
    assert parse("hf://org/name@v1/x").revision == "v1/x"
    oci = parse("oci://localhost:5000/a/b-c:1.0")
    assert (oci.place, oci.revision, oci.name) == ("localhost:5000/a/b-c", "1.0", "b-c")
    assert parse("oci://h/a").revision == "latest"
    assert parse("oci://h/a@sha256:" + "0" * 64).revision == "sha256:" + "0" * 64
    web = parse("https://me:pw@h/a/b/@" + "0" * 32)
    assert (web.revision, web.name, str(web)) == ("0" * 32, "b", "https://h/a/b")
    assert parse("dist/x@y").place == "dist/x@y"


def test_a_web_server_cannot_be_published_to() -> None:
    with pytest.raises(UsageError, match="cannot be published to"):
        open_destination("https://example.com/toy")


@pytest.mark.parametrize(
    "change", [{"path": 7}, {"path": "../evil"}, {"path": None}, {"sha256": 7}, {"size_bytes": "9"}]
)
def test_an_older_version_that_cannot_be_is_refused(
    place: Path, package: Path, signer: Signer, tmp_path: Path, change: dict[str, object]
) -> None:
    new = signer.sign(rewrite(package, tmp_path / "new", {"README.md": b"# newer\n"}))
    newest = send(new, place, signer.trust).version
    index = json.loads((place / "index.json").read_text())
    older = next(version for version in index["versions"] if version != newest)
    index["versions"][older]["files"][0].update(change)
    (place / "index.json").write_text(json.dumps(index))
    newer = signer.sign(rewrite(package, tmp_path / "newer", {"README.md": b"# newest\n"}))
    with pytest.raises(BadArtifact):
        send(newer, place, signer.trust)
