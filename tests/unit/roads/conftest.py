"""A signed package, published into a directory, and that behind a web server; short pauses, no credentials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kobako.pipeline.publish import PublishRequest, publish
from kobako.pipeline.registry import transport
from kobako.pipeline.registry.roads import open_destination

from tests.unit.roads.file_server import FileServer
from tests.unit.roads.packages import Signer, Watching, make_package


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(tmp_path_factory.mktemp("keys"))


@pytest.fixture(autouse=True)
def hurried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and a home without anybody's logins."""
    monkeypatch.setattr(transport, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(transport, "TIMEOUT_S", 0.5)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "NETRC", "KOBAKO_TRUST"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()


@pytest.fixture
def package(tmp_path: Path, signer: Signer) -> Path:
    return signer.sign(make_package(tmp_path / "made" / "toy"))


@pytest.fixture
def place(tmp_path: Path, package: Path, signer: Signer) -> Path:
    """A directory in which the package was published."""
    there = tmp_path / "site" / "toy"
    publish(PublishRequest(package=package, trust=signer.trust), open_destination(str(there)), Watching())
    return there


@pytest.fixture
def site(place: Path) -> Iterator[FileServer]:
    """The same behind a web server: the package is at ``site.url + "/toy"``."""
    server = FileServer(place.parent)
    yield server
    server.close()
