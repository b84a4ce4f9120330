"""Publishing to and pulling from the Hub (on loopback), with the Hub's own client for everything that writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kobako.pipeline.errors import AccessDenied, IntegrityError, NetworkError, NotFound, OutputError
from kobako.pipeline.publish import PublishRequest, publish
from kobako.pipeline.pull import Pulled, PullRequest, pull
from kobako.pipeline.registry.listing import Published
from kobako.pipeline.registry.roads import open_destination, open_source
from kobako.pipeline.sets.check import sign_set
from kobako.pipeline.sets.make import make_set, parse_assignment
from kobako.pipeline.sets.travel import PulledSet, publish_any, pull_any
from kobako.pipeline.sign import load_key

from tests.unit.roads.hub_writes import GOOD_TOKEN, WritableHub
from tests.unit.roads.packages import (
    Signer,
    Watching,
    contents,
    expected,
    leftovers,
    make_package,
    rewrite,
    task,
)

REPO = "team/toy"
LARGE = ("litert/model.tflite", "executorch/model.pte", "coreml/model.mlpackage/Data/weights/weight.bin")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """An empty Hub; the Hub's client points to it, with the good token."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http
    from kobako.pipeline.fetch import hub_errors

    server = WritableHub()
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub_errors, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    yield server
    server.close()


def send(package: Path, signer: Signer, address: str = f"hf://{REPO}", *, private: bool = False) -> Published:
    place = open_destination(address, private=private)
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


def test_there_and_back(hub: WritableHub, package: Path, signer: Signer, tmp_path: Path) -> None:
    done = send(package, signer)
    files = hub.repos[REPO].commits[hub.repos[REPO].branches["main"]]
    assert {path: content for path, content in files.items() if path != ".gitattributes"} == contents(package)
    bring(f"hf://{REPO}", tmp_path / "out", signer)
    assert contents(tmp_path / "out") == contents(package)
    pulled = bring(done.address, tmp_path / "some", signer, "executorch")
    assert contents(tmp_path / "some") == expected(package, "executorch")
    assert pulled.version == hub.repos[REPO].branches["main"]
    assert leftovers(tmp_path) == []


def test_a_set_there_and_back(hub: WritableHub, signer: Signer, tmp_path: Path) -> None:
    made = tmp_path / "set"
    chatty = make_package(tmp_path / "chatty", tasks=[task("chat")])  # unsigned: the set vouches for it
    make_set(made, "set", [parse_assignment(f"chat={chatty}")], open_source)
    sign_set(made, load_key(signer.private, None, None, ()))
    publish_any(PublishRequest(package=made, trust=signer.trust), open_destination(f"hf://{REPO}"), Watching())

    def once() -> PulledSet:
        request = PullRequest(targets=(), trust=signer.trust, out=tmp_path / "out")
        done = pull_any(open_source(f"hf://{REPO}"), request, Watching(), open_source)
        assert isinstance(done, PulledSet)
        return done

    assert not once().unchanged
    assert contents(tmp_path / "out") == contents(made)
    again = once()
    assert (again.unchanged, again.transferred_bytes) == (True, 0)


def test_only_the_asked_target_is_taken_and_twice_nothing(
    hub: WritableHub, package: Path, signer: Signer, tmp_path: Path
) -> None:
    send(package, signer)
    hub.log.clear()
    bring(f"hf://{REPO}", tmp_path / "out", signer, "litert")
    assert len(hub.transfers()) == 1
    hub.log.clear()
    assert bring(f"hf://{REPO}", tmp_path / "out", signer, "litert").unchanged
    assert [path for _, path, _ in hub.log] == [f"/api/models/{REPO}/revision/main"] or len(hub.log) == 1


def test_only_changed_files_are_uploaded(hub: WritableHub, package: Path, signer: Signer, tmp_path: Path) -> None:
    first = send(package, signer)
    assert sorted(first.uploaded) == sorted(contents(package))
    assert send(package, signer).unchanged
    assert len(hub.committed) == 1
    hub.log.clear()
    new = signer.sign(rewrite(package, tmp_path / "new", {"README.md": b"---\ntags: []\n---\n# newer\n"}))
    done = send(new, signer)
    assert sorted(done.uploaded) == ["README.md", "kobako.json", "model.sig"]
    assert not [path for method, path, _ in hub.log if method == "PUT"]
    bring(first.address, tmp_path / "old", signer)
    assert contents(tmp_path / "old") == contents(package)
    bring(f"hf://{REPO}", tmp_path / "now", signer)
    assert contents(tmp_path / "now") == contents(new)


def test_what_the_old_package_had_goes_and_what_others_put_there_stays(
    hub: WritableHub, package: Path, signer: Signer, tmp_path: Path
) -> None:
    send(package, signer)
    repo = hub.repos[REPO]
    repo.commit(repo.commits[repo.branches["main"]] | {"images/logo.png": b"png", "odd name?.txt": b"x"})
    smaller = rewrite(package, tmp_path / "smaller", {})
    (smaller / "golden" / "golden.json").unlink()
    value = json.loads((smaller / "kobako.json").read_text())
    value["files"] = [entry for entry in value["files"] if entry["path"] != "golden/golden.json"]
    (smaller / "kobako.json").write_text(json.dumps(value))
    send(signer.sign(smaller), signer)
    files = repo.commits[repo.branches["main"]]
    assert "golden/golden.json" not in files
    assert {"images/logo.png", "odd name?.txt", ".gitattributes"} <= set(files)
    bring(f"hf://{REPO}", tmp_path / "out", signer)
    assert contents(tmp_path / "out") == contents(smaller)


def test_a_branch_is_made(hub: WritableHub, package: Path, signer: Signer, tmp_path: Path) -> None:
    send(package, signer, f"hf://{REPO}@v1.0")
    assert "v1.0" in hub.repos[REPO].branches
    bring(f"hf://{REPO}@v1.0", tmp_path / "out", signer, "litert")
    assert contents(tmp_path / "out") == expected(package, "litert")
    with pytest.raises(NotFound):
        bring(f"hf://{REPO}@v2.0", tmp_path / "o", signer)
    with pytest.raises(OutputError, match="Name a branch"):
        open_destination(f"hf://{REPO}@{'a' * 40}")


def test_an_upload_that_fails_is_tried_again(hub: WritableHub, package: Path, signer: Signer) -> None:
    hub.upload_errors = 3
    send(package, signer)
    assert len(hub.stored) == len(LARGE)


def test_an_upload_that_never_succeeds_commits_nothing(hub: WritableHub, package: Path, signer: Signer) -> None:
    hub.upload_errors = 10_000
    with pytest.raises(NetworkError):
        send(package, signer)
    assert not hub.committed


def test_tokens(
    hub: WritableHub, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Needed to write and for what is private; never shown, kept, or sent to the storage's host."""
    signer = Signer(tmp_path / "keys")
    package = signer.sign(package)
    caplog.set_level("DEBUG")
    send(package, signer, private=True)
    assert hub.repos[REPO].private
    bring(f"hf://{REPO}", tmp_path / "out", signer)
    assert all("authorization" not in headers for headers in hub.transfers())
    puts = [headers for method, path, headers in hub.log if path.startswith("/storage/")]
    assert puts
    assert all("authorization" not in headers for headers in puts)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongsecret")
    for action in (
        lambda: bring(f"hf://{REPO}", tmp_path / "o", signer),
        lambda: send(package, signer, "hf://team/other"),
    ):
        with pytest.raises((NotFound, AccessDenied)) as caught:
            action()
        assert "hf_" not in str(caught.value)
    shown = capfd.readouterr()
    for token in (GOOD_TOKEN, "hf_wrongsecret"):
        assert token not in shown.out + shown.err + caplog.text
        assert all(token.encode() not in content for content in contents(tmp_path / "out").values())


def test_a_corrupted_transfer_is_refused(hub: WritableHub, package: Path, signer: Signer, tmp_path: Path) -> None:
    send(package, signer)
    hub.faults.corrupt = True
    with pytest.raises(IntegrityError):
        bring(f"hf://{REPO}", tmp_path / "out", signer, "litert")
    assert not (tmp_path / "out").exists()


def test_a_broken_transfer_is_continued(hub: WritableHub, package: Path, signer: Signer, tmp_path: Path) -> None:
    send(package, signer)
    hub.faults.cuts = [100_000, 50_000]
    bring(f"hf://{REPO}", tmp_path / "out", signer, "litert")
    assert contents(tmp_path / "out") == expected(package, "litert")
    assert [headers.get("range") for headers in hub.transfers()] == [None, "bytes=100000-", "bytes=150000-"]
