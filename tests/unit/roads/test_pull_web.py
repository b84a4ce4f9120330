"""Pulling over HTTP: only what is asked for, whatever the server does, and never anything that was not promised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kobako.pipeline import pull as pull_module
from kobako.pipeline.errors import (
    AccessDenied,
    BadArtifact,
    IntegrityError,
    NetworkError,
    NotEnoughDisk,
    NotFound,
    OutputError,
    Untrusted,
    UsageError,
)
from kobako.pipeline.publish import PublishRequest, publish
from kobako.pipeline.pull import Pulled, PullRequest, pull
from kobako.pipeline.registry.roads import open_destination, open_source
from kobako.pipeline.signature.trust import Trust

from tests.unit.roads.file_server import Faults, FileServer
from tests.unit.roads.packages import ANYBODY, Signer, Watching, contents, expected, leftovers, make_package, rewrite

MODEL = "litert/model.tflite"


def bring(source: str, out: Path, trust: Trust, *targets: str, watching: Watching | None = None) -> Pulled:
    road = open_source(source)
    try:
        return pull(road, PullRequest(targets=targets, trust=trust, out=out), watching or Watching())
    finally:
        road.close()


def test_only_the_asked_target_and_what_all_share_is_taken(
    site: FileServer, package: Path, signer: Signer, tmp_path: Path
) -> None:
    watching = Watching()
    done = bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert", watching=watching)
    assert contents(tmp_path / "out") == expected(package, "litert")
    assert done.targets == ("litert",)
    assert done.signer == "key.pub"
    assert not site.requests("model.pte")
    assert not site.requests("weight.bin")
    assert watching.fractions[-1] == 1.0
    assert watching.fractions == sorted(watching.fractions)
    assert leftovers(tmp_path) == []


def test_all_targets_come_by_default_and_one_content_comes_once(
    site: FileServer, package: Path, signer: Signer, tmp_path: Path
) -> None:
    bring(site.url + "/toy", tmp_path / "out", signer.trust)
    assert contents(tmp_path / "out") == contents(package)
    assert len(site.requests("tokenizer.json")) == 1


def test_twice_transfers_nothing(site: FileServer, signer: Signer, tmp_path: Path) -> None:
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    inode = (tmp_path / "out" / MODEL).stat().st_ino
    before = len(site.log)
    done = bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert done.unchanged
    assert done.transferred_bytes == 0
    assert [path for path, _ in site.log[before:]] == ["/toy/index.json"]
    assert (tmp_path / "out" / MODEL).stat().st_ino == inode


def test_another_target_later_takes_only_what_is_new(site: FileServer, signer: Signer, tmp_path: Path) -> None:
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    before = len(site.log)
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert", "executorch")
    assert sorted(path.rpartition("/")[2] for path, _ in site.log[before:]) == [
        "index.json",
        "model.pte",
        "tokenizer.json",
    ]
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "executorch")
    assert not (tmp_path / "out" / "litert").exists()


def test_a_new_version_takes_only_changed_files(
    site: FileServer, place: Path, package: Path, signer: Signer, tmp_path: Path
) -> None:
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    new = signer.sign(rewrite(package, tmp_path / "new", {"README.md": b"# newer\n"}))
    publish(PublishRequest(package=new, trust=signer.trust), open_destination(str(place)), Watching())
    before = len(site.log)
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert contents(tmp_path / "out") == expected(new, "litert")
    names = sorted(path.rpartition("/")[2] for path, _ in site.log[before:])
    assert names == ["README.md", "index.json", "kobako.json", "model.sig"]


def test_a_damaged_file_is_mended(site: FileServer, package: Path, signer: Signer, tmp_path: Path) -> None:
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    damaged = tmp_path / "out" / MODEL
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    done = bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert contents(tmp_path / "out") == expected(package, "litert")
    assert done.transferred_bytes == damaged.stat().st_size


def test_a_transfer_that_breaks_off_is_continued(
    site: FileServer, package: Path, signer: Signer, tmp_path: Path
) -> None:
    site.faults = Faults(only=MODEL, cuts=[100_000, 50_000, 10])
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert contents(tmp_path / "out") == expected(package, "litert")
    asked = [headers.get("range") for headers in site.requests(MODEL)]
    assert asked == [None, "bytes=100000-", "bytes=150000-", "bytes=150010-"]
    assert all("if-range" in headers for headers in site.requests(MODEL)[1:])


def test_a_later_run_continues_what_an_earlier_one_began(
    site: FileServer, package: Path, signer: Signer, tmp_path: Path
) -> None:
    site.faults = Faults(only=MODEL, cuts=[200_000], errors=[])
    original = site.faults.cuts

    class Down(list):  # type: ignore[type-arg]
        """After the first cut the server is down."""

        def __bool__(self) -> bool:
            return not original

        def pop(self, index: int = 0) -> int:
            return 503

    site.faults.errors = Down()
    with pytest.raises(NetworkError):
        bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert not (tmp_path / "out").exists()
    site.faults = Faults()
    before = len(site.log)
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert contents(tmp_path / "out") == expected(package, "litert")
    again = dict(site.log[before:])
    assert next(headers for path, headers in again.items() if path.endswith(MODEL))["range"] == "bytes=200000-"
    assert not any(path.endswith("tokenizer.json") for path in again), "a whole file was transferred again"


@pytest.mark.parametrize(
    "faults",
    [
        Faults(only=MODEL, cuts=[100_000], ignore_range=True),
        Faults(only=MODEL, cuts=[100_000], no_validator=True),
        Faults(only=MODEL, cuts=[100_000], weak_etag=True),
        Faults(only=MODEL, stalls=[100_000]),
        Faults(only=MODEL, errors=[503, 429, 500]),
        Faults(only=MODEL, corrupt=1),
        Faults(only=MODEL, cuts=[100_000], range_shift=3),
    ],
    ids=["ignores Range", "no validator", "weak ETag", "stalls", "is busy", "one flipped bit", "continues wrongly"],
)
def test_faults_that_pass_are_survived(
    site: FileServer, package: Path, signer: Signer, tmp_path: Path, faults: Faults
) -> None:
    faults.range_shift = 0 if not faults.range_shift else faults.range_shift
    site.faults = faults
    if faults.range_shift:  # such a server never gives the right bytes to a resumed transfer: begin anew, once
        with pytest.raises((IntegrityError, NetworkError)):
            bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
        site.faults = Faults()
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert contents(tmp_path / "out") == expected(package, "litert")
    assert leftovers(tmp_path) == []


def test_a_206_from_elsewhere_is_not_appended(site: FileServer, package: Path, signer: Signer, tmp_path: Path) -> None:
    site.faults = Faults(only=MODEL, cuts=[100_000], wrong_range=True)
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert contents(tmp_path / "out") == expected(package, "litert")
    assert [headers.get("range") for headers in site.requests(MODEL)] == [None, "bytes=100000-", None]


@pytest.mark.parametrize("ignore_if_range", [False, True])
def test_a_file_that_changes_between_requests_is_never_mixed(
    site: FileServer, package: Path, signer: Signer, tmp_path: Path, ignore_if_range: bool
) -> None:
    other = bytes(300_000)
    site.faults = Faults(only=MODEL, cuts=[100_000], changes=other, ignore_if_range=ignore_if_range)
    with pytest.raises(IntegrityError, match="digest"):
        bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert not (tmp_path / "out").exists()
    assert site.requests(MODEL)[1]["range"] == "bytes=100000-"
    site.changed.clear()
    site.faults = Faults()
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert contents(tmp_path / "out") == expected(package, "litert")


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        (Faults(only=MODEL, lie_bytes=5), IntegrityError),
        (Faults(only=MODEL, lie_bytes=-5), IntegrityError),
        (Faults(only=MODEL, endless=True), IntegrityError),
        (Faults(only=MODEL, gzip=True), IntegrityError),
        (Faults(only=MODEL, corrupt=99), IntegrityError),
        (Faults(only=MODEL, errors=[500] * 99), NetworkError),
        (Faults(only=MODEL, errors=[404]), NotFound),
        (Faults(only=MODEL, errors=[403]), AccessDenied),
        (Faults(only=MODEL, stalls=[10] * 9, ignore_range=True), NetworkError),
        (Faults(only="index.json", errors=[404]), NotFound),
    ],
)
def test_faults_that_stay_are_refused(
    site: FileServer, signer: Signer, tmp_path: Path, faults: Faults, error: type[Exception]
) -> None:
    site.faults = faults
    with pytest.raises(error):
        bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert not (tmp_path / "out").exists()
    site.faults = Faults()
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert leftovers(tmp_path) == []


def test_nothing_is_written_past_the_promised_end(site: FileServer, signer: Signer, tmp_path: Path) -> None:
    site.faults = Faults(only=MODEL, endless=True)
    with pytest.raises(IntegrityError, match="does not end"):
        bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert all(path.stat().st_size <= 300_000 for path in tmp_path.glob(".out.*/**/*") if path.is_file())


@pytest.mark.parametrize("name", ["out", "a[b", "v[12]", "what?", "**"])
def test_what_pulls_of_other_versions_left_is_swept_and_nothing_else(
    place: Path, signer: Signer, tmp_path: Path, name: str
) -> None:
    left = tmp_path / f".{name}.0123456789ab.pull"
    neighbour = tmp_path / ".v1.0123456789ab.pull"
    for path in (left, neighbour):
        path.mkdir()
    bring(str(place), tmp_path / name, signer.trust, "litert")
    assert leftovers(tmp_path) == [neighbour.name]


def test_a_server_that_is_gone(site: FileServer, signer: Signer, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="cannot be reached"):
        bring("http://127.0.0.1:9/toy", tmp_path / "out", signer.trust)


def test_too_little_space_is_said_first(
    site: FileServer, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(pull_module.shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(NotEnoughDisk, match="0 MB free"):
        bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    assert not site.requests(MODEL)


def test_a_directory_is_pulled_like_a_server(place: Path, package: Path, signer: Signer, tmp_path: Path) -> None:
    bring(str(place), tmp_path / "out", signer.trust, "coreml")
    assert contents(tmp_path / "out") == expected(package, "coreml")


def test_an_unknown_target_is_named(site: FileServer, signer: Signer, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no target 'onnx'"):
        bring(site.url + "/toy", tmp_path / "out", signer.trust, "onnx")
    assert not (tmp_path / "out").exists()


def test_a_web_server_with_a_login(site: FileServer, signer: Signer, tmp_path: Path) -> None:
    site.faults = Faults(login="me:secret")
    with pytest.raises(AccessDenied):
        bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    bring(site.url + "/toy", tmp_path / "out", signer.trust, "litert")


def test_a_login_in_the_address_wins_and_a_broken_netrc_is_said(
    site: FileServer, signer: Signer, tmp_path: Path
) -> None:
    site.faults = Faults(login="me:s@cret")
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password wrong\n")
    netrc.chmod(0o600)
    bring(site.url.replace("http://", "http://me:s%40cret@") + "/toy", tmp_path / "out", signer.trust, "litert")
    netrc.write_text("machine 127.0.0.1 nonsense word\n")
    with pytest.raises(UsageError, match=r"\.netrc"):
        bring(site.url + "/toy", tmp_path / "o", signer.trust)


def test_a_password_does_not_travel_to_another_host_and_is_not_shown(
    site: FileServer, place: Path, signer: Signer, tmp_path: Path
) -> None:
    other = FileServer(place.parent)
    try:
        site.faults = Faults(only=MODEL, redirect_to=other.url)
        address = site.url.replace("http://", "http://me:hunter2@") + "/toy"
        bring(address, tmp_path / "out", signer.trust, "litert")
        assert all("authorization" in headers for headers in site.requests())
        assert other.requests(MODEL)
        assert all("authorization" not in headers for headers in other.requests())
    finally:
        other.close()
    with pytest.raises(NotFound) as caught:
        bring(site.url.replace("http://", "http://me:hunter2@") + "/nothing", tmp_path / "o", signer.trust)
    assert "hunter2" not in str(caught.value)


# Signatures


def test_an_unsigned_package_is_refused_before_anything_is_transferred(tmp_path: Path, signer: Signer) -> None:
    made = make_package(tmp_path / "toy")
    publish(PublishRequest(package=made, trust=ANYBODY), open_destination(str(tmp_path / "site")), Watching())
    with pytest.raises(Untrusted, match="not signed"):
        bring(str(tmp_path / "site"), tmp_path / "out", signer.trust)
    done = bring(str(tmp_path / "site"), tmp_path / "out", ANYBODY)
    assert done.signer is None
    assert contents(tmp_path / "out") == contents(made)


def test_another_signer_is_refused_before_the_manifest_is_parsed(
    site: FileServer, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(_: Path) -> None:
        raise AssertionError("the manifest was parsed")

    monkeypatch.setattr(pull_module, "read_manifest", parsed)
    stranger = Signer(tmp_path / "stranger")
    with pytest.raises(Untrusted, match="does not know"):
        bring(site.url + "/toy", tmp_path / "out", stranger.trust)
    with pytest.raises(Untrusted):
        bring(site.url + "/toy", tmp_path / "out", Trust())
    assert not site.requests(MODEL)


def forge(place: Path, path: str, content: bytes) -> None:
    """What a thief of the web server can do: change a file and the index that describes it."""
    from tests.unit.roads.packages import entries

    index = json.loads((place / "index.json").read_text())
    version = index["latest"]
    (place / version / path).write_bytes(content)
    for entry in index["versions"][version]["files"]:
        if entry["path"] == path:
            entry.update(entries({path: content})[0])
    (place / "index.json").write_text(json.dumps(index))


def test_a_forged_manifest_is_not_parsed(
    place: Path, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(place, "kobako.json", b"{}")

    def parsed(_: Path) -> None:
        raise AssertionError("the manifest was parsed")

    monkeypatch.setattr(pull_module, "read_manifest", parsed)
    with pytest.raises(IntegrityError, match="not the one that was signed"):
        bring(str(place), tmp_path / "out", signer.trust)


def test_a_forged_file_is_refused_before_it_is_transferred(
    site: FileServer, place: Path, signer: Signer, tmp_path: Path
) -> None:
    forge(place, MODEL, b"evil")
    with pytest.raises(IntegrityError, match="offers another"):
        bring(site.url + "/toy", tmp_path / "out", signer.trust)
    assert not site.requests(MODEL)
    assert not (tmp_path / "out").exists()


def test_a_damaged_signature_is_refused_even_when_unsigned_is_allowed(
    place: Path, signer: Signer, tmp_path: Path
) -> None:
    forge(place, "model.sig", b"{}")
    from dataclasses import replace

    with pytest.raises(Untrusted):
        bring(str(place), tmp_path / "out", replace(signer.trust, unsigned="allow"))


# Hostile sources and taken destinations


@pytest.mark.parametrize(
    "path",
    ["../evil", "/etc/evil", "a/../../evil", "a//b", "a\\..\\evil", "C:evil", "a\x00b", "a\x1b[31m", "x\u202egpj.exe",
     "\ud800", "", ".", "a/.", "x" * 600, "CON", "litert /model", "e\u0301", 7, None],
)  # fmt: skip
def test_a_name_that_no_package_may_hold(place: Path, tmp_path: Path, path: object) -> None:
    index = json.loads((place / "index.json").read_text())
    index["versions"][index["latest"]]["files"][0]["path"] = path
    (place / "index.json").write_text(json.dumps(index))
    with pytest.raises(BadArtifact):
        bring(str(place), tmp_path / "out", ANYBODY)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files.append(dict(files[0])),
        lambda files: files.append(files[0] | {"path": files[0]["path"].upper()}),
        lambda files: files.append(files[0] | {"path": "LITERT/other.bin"}),
        lambda files: files.append(files[0] | {"path": "litert"}),
        lambda files: files[0].update(size_bytes=-1),
        lambda files: files[0].update(size_bytes=2**60),
        lambda files: files[0].update(size_bytes=True),
        lambda files: files[0].update(size_bytes="9"),
        lambda files: files[0].update(sha256="0" * 63),
        lambda files: files[0].update(sha256=None),
        lambda files: files[0].update(sha256=["a"]),
        lambda files: files.extend({"path": f"f{i}", "size_bytes": 0, "sha256": "0" * 64} for i in range(10_001)),
        lambda files: files.append(7),
    ],
)
def test_an_index_that_cannot_be(place: Path, tmp_path: Path, change: object) -> None:
    index = json.loads((place / "index.json").read_text())
    change(index["versions"][index["latest"]]["files"])  # type: ignore[operator]
    (place / "index.json").write_text(json.dumps(index))
    with pytest.raises(BadArtifact):
        bring(str(place), tmp_path / "out", ANYBODY)


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"versions": 3}', "[" * 100_000, '{"format_version": "2.0", "versions": {}}', "\xff"]
)
def test_an_index_that_is_none(place: Path, tmp_path: Path, text: str) -> None:
    (place / "index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadArtifact):
        bring(str(place), tmp_path / "out", ANYBODY)


def test_an_endless_index(site: FileServer, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kobako.pipeline.registry import directory

    monkeypatch.setattr(directory, "MAX_INDEX_BYTES", 100_000)
    site.faults = Faults(only="index.json", endless=True)
    with pytest.raises(BadArtifact, match="larger"):
        bring(site.url + "/toy", tmp_path / "out", ANYBODY)


def test_what_is_no_package_is_left_alone(place: Path, signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not a kobako package"):
        bring(str(place), tmp_path / "mine", signer.trust)
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years of work"}


def test_a_destination_below_a_file(place: Path, signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        bring(str(place), tmp_path / "file" / "out", signer.trust)


def test_a_package_that_was_never_published(package: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="a package itself"):
        bring(str(package), tmp_path / "out", ANYBODY)
