"""A matrix built to a URL: packages over older ones, whatever a driver does; a row for every job; no login shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from kobako.pipeline import build as building
from kobako.pipeline.build import Result
from kobako.pipeline.cache import Cache
from kobako.pipeline.cli import main
from kobako.pipeline.errors import MissingDependency, NetworkError, OutputError, UsageError
from kobako.pipeline.executors import Order, build_order
from kobako.pipeline.executors.sending import UNDER_WAY, Destination
from kobako.pipeline.matrix import Job
from kobako.pipeline.registry.addresses import without_secrets
from kobako.pipeline.remote import opened, without_secrets_of
from kobako.pipeline.run import Observer, Request
from kobako.pipeline.shared_cache import SharedCache
from kobako.pipeline.signature.trust import Trust
from kobako.pipeline.verify import verify
from tiny_package import write_package

SECRET = "hunter2"


class NoCredentials(Exception):
    """As botocore's: no OSError."""


class Failing(MemoryFileSystem):  # type: ignore[misc]
    """Memory, until it has taken as many files as are allowed."""

    protocol = "failing"
    store: dict[str, Any] = {}  # noqa: RUF012  # as in its base
    pseudo_dirs = [""]  # noqa: RUF012
    allowed = 10**6
    puts: list[str] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("failing://").rpartition("@")[2].strip("/")

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        if len(self.puts) >= self.allowed:
            raise NoCredentials(f"no access to failing://me:{SECRET}@host")
        self.puts.append(rpath)
        super().put_file(lpath, rpath, **options)


@pytest.fixture(autouse=True)
def driver() -> Iterator[None]:
    fsspec.register_implementation("failing", Failing, clobber=True)
    Failing.store.clear()
    Failing.puts.clear()
    Failing.allowed = 10**6
    yield
    Failing.store.clear()


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/there/toy-int8" if request.param == "file" else f"memory://{tmp_path.name}/toy-int8"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "work", tmp_path / "toy-int8")


def brought_back(url: str, home: Path) -> Path:
    files, root = opened(url)
    files.get(root + "/", str(home) + "/", recursive=True)
    return home


def test_what_was_sent_verifies(url: str, package: Path, tmp_path: Path) -> None:
    Destination(url).send(package)
    assert verify(brought_back(url, tmp_path / "back"), Trust(unsigned="allow")).targets


def test_an_older_package_leaves_nothing_behind(url: str, package: Path, tmp_path: Path) -> None:
    """Files that the new one has not, a signature among them, which would no longer hold."""
    files, root = opened(url)
    Destination(url).send(package)
    files.makedirs(f"{root}/coreml", exist_ok=True)
    files.pipe_file(f"{root}/coreml/model.mlpackage", b"old")
    files.pipe_file(f"{root}/model.sig", b"old")
    Destination(url).send(write_package(tmp_path / "work2", tmp_path / "new", build_id="fedcba9876543210" * 2))
    back = brought_back(url, tmp_path / "back")
    assert verify(back, Trust(unsigned="allow")).manifest["build_id"].startswith("fedc")
    assert {path.name for path in back.rglob("*") if path.is_file()}.isdisjoint(
        {"model.sig", "model.mlpackage", UNDER_WAY}
    )


@pytest.mark.parametrize("allowed", [0, 1, 5])
def test_no_manifest_stands_while_files_change(package: Path, tmp_path: Path, allowed: int) -> None:
    """Killed at any moment, it is no package; and the next upload makes it one."""
    url = f"failing://me:{SECRET}@host/toy-int8"
    Destination(url).send(package)
    Failing.puts.clear()
    Failing.allowed = allowed
    with pytest.raises(NetworkError, match="NoCredentials") as caught:
        Destination(url).send(package)
    assert SECRET not in str(caught.value)
    assert not opened(url)[0].exists("/host/toy-int8/kobako.json")
    Failing.allowed = 10**6
    Failing.puts.clear()
    Destination(url).send(package)
    assert Failing.puts[-1].endswith("/kobako.json")
    assert verify(brought_back(url, tmp_path / "back"), Trust(unsigned="allow")).targets


def test_what_is_none_of_ours_is_left_alone(url: str, package: Path, tmp_path: Path) -> None:
    files, root = opened(url)
    files.makedirs(root, exist_ok=True)
    files.pipe_file(f"{root}/thesis.tex", b"mine")
    with pytest.raises(OutputError, match="no kobako package"):
        Destination(url).check()
    with pytest.raises(OutputError, match="no kobako package"):
        Destination(url).send(package)
    assert files.cat_file(f"{root}/thesis.tex") == b"mine"
    files.rm_file(f"{root}/thesis.tex")
    files.pipe_file(f"{root}/kobako.json", json.dumps({"name": "other"}).encode())
    Destination(url).check()
    with pytest.raises(OutputError, match="another package, other"):
        Destination(url).send(package)


# --- jobs ------------------------------------------------------------------------------------------------------------

JOB = Job(
    name="toy-int8", model="toy", recipe="int8", targets="litert", context=64, tasks="", publish="", memory_bytes=0
)


class Silent:
    def started(self, stage: str) -> None: ...
    def progress(self, stage: str, fraction: float, text: str) -> None: ...
    def finished(self, stage: str, seconds: float, cached: bool) -> None: ...
    def failed(self, stage: str, error: Exception) -> None: ...


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Request]:
    """The requests that came to be built; each gives the same small package."""
    seen: list[Request] = []

    def fake(request: Request, _cache: Cache, _observer: Observer) -> Result:
        seen.append(request)
        assert request.out is not None
        write_package(tmp_path / f"work{len(seen)}", request.out)
        return Result(
            package=request.out, reports={}, measurements={}, failures={}, seconds=1.0, peak_rss_bytes=1,
            unchanged=False,
        )  # fmt: skip

    monkeypatch.setattr(building, "build", fake)
    return seen


@pytest.mark.parametrize("right", ["pipe_file", "rm_file"])
def test_a_login_that_may_not_write_or_remove_is_told_before_the_build(
    monkeypatch: pytest.MonkeyPatch, right: str
) -> None:
    def denied(*_: object) -> NoReturn:
        raise PermissionError("AccessDenied")

    monkeypatch.setattr(Failing, right, denied)
    with pytest.raises(NetworkError, match="AccessDenied"):
        Destination("failing://host/new").check()


def test_a_job_is_sent_and_its_login_is_not_shown(built: list[Request], tmp_path: Path) -> None:
    done = build_order(Order(job=JOB, out=f"failing://me:{SECRET}@host/all", cache=str(tmp_path / "c")), Silent())
    assert (done.error, done.package) == ("", "failing://host/all/toy-int8")
    assert len(built) == 1
    assert not (tmp_path / "c" / "orders" / "toy-int8").exists()


@pytest.mark.parametrize(
    ("out", "kind"),
    [
        (f"nosuchthing://me:{SECRET}@host/all", "UsageError"),
        (f"needy://me:{SECRET}@host/all", "MissingDependency"),
        (f"broken://me:{SECRET}@host/all", "NetworkError"),
    ],
)
def test_a_place_that_cannot_be_used_is_told_before_the_build(
    built: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, kind: str
) -> None:
    real = fsspec.core.url_to_fs

    def url_to_fs(url: str) -> Any:
        if url.startswith("needy"):
            raise ImportError("Install needyfs")
        if url.startswith("broken"):
            raise NoCredentials(f"not with {SECRET}")
        return real(url)

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    for order in (Order(job=JOB, out=out), Order(job=JOB, out=str(tmp_path / "out"), shared=out)):
        done = build_order(replace(order, cache=str(tmp_path / "c")), Silent())
        assert (done.error, done.package) == (kind, "")
        assert SECRET not in repr(done)
    assert built == []


def test_an_unexpected_error_is_one_jobs_row_and_exit_code(
    built: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = building.build

    def sometimes(request: Request, cache: Cache, observer: Observer) -> Result:
        if request.recipe.name == "int8":
            raise ZeroDivisionError(f"in failing://me:{SECRET}@host")
        return real(request, cache, observer)

    monkeypatch.setattr(building, "build", sometimes)
    (tmp_path / "models.toml").write_text('[[model]]\nmodel = "smollm2-135m-instruct"\nrecipes = ["int8", "int4"]\n')
    code, out, err = kobako(
        monkeypatch, capsys, "build", "--matrix", str(tmp_path / "models.toml"), "--json", "--quiet",
        "--out", f"failing://me:{SECRET}@host/all", "--cache-dir", str(tmp_path / "c"),
    )  # fmt: skip
    one, other = json.loads(out)
    assert code == 13
    assert one["error"] == "TargetCrashed"
    assert "ZeroDivisionError" in one["what"]
    assert (other["error"], len(built)) == ("", 1)
    assert SECRET not in out + err


def kobako(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["kobako", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


# --- logins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"sftp://me:{SECRET}@host:22/x", "sftp://host:22/x"),
        (f"simplecache::sftp://me:{SECRET}@host/x", "simplecache::sftp://host/x"),
        (f"abfs://c/x?sig={SECRET}", "abfs://c/x"),
        (f"https://{SECRET}@host/x#{SECRET}", "https://host/x"),
    ],
)
def test_a_url_is_shown_without_its_login(url: str, words: str) -> None:
    assert without_secrets(url) == words
    for said in (f"cannot reach {url}!", f"login {SECRET} refused", f"{url}/deep: no"):
        assert SECRET not in without_secrets_of(said, url)


def test_a_url_without_secrets_stays() -> None:
    for url in ("s3://bucket/kobako", "file:///a/b", "simplecache::s3://bucket/x"):
        assert without_secrets(url) == url
        assert without_secrets_of(f"no such bucket: {url}", url) == f"no such bucket: {url}"


def test_a_password_is_found_as_it_is_meant() -> None:
    assert without_secrets_of("p@ss/word is wrong", "sftp://me:p%40ss%2Fword@host/x") == "… is wrong"


def refusing(*_: object, **__: object) -> NoReturn:
    raise NoCredentials(f"{SECRET} is not welcome")


@pytest.mark.parametrize("act", ["bring", "keep"])
def test_the_shared_caches_errors_show_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    monkeypatch.setattr(Failing, "exists", refusing)
    with pytest.raises(NetworkError, match="failing://host/cache cannot be used") as caught:
        getattr(SharedCache(f"failing://me:{SECRET}@host/cache"), act)("load", "0" * 32, tmp_path)
    assert SECRET not in str(caught.value)


def test_opening_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> NoReturn:
        raise ImportError("Install s3fs to access S3")

    with pytest.raises(UsageError):
        opened("nosuchthing://x")
    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingDependency, match="Install s3fs"):
        opened("s3://x")
