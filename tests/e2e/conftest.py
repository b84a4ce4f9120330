"""One real build of SmolLM2-135M for all end-to-end tests."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KOBAKO = str(Path(sys.executable).parent / "kobako")
MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Shown:
    """What one call of kobako did."""

    code: int
    out: str
    err: str
    cpu_seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Shown]


def call_kobako(*arguments: object, timeout: float = 1500, **environment: str) -> Shown:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [KOBAKO, *map(str, arguments)], capture_output=True, text=True, env=os.environ | environment,
        stdin=subprocess.DEVNULL, timeout=timeout, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Shown(done.returncode, done.stdout, done.stderr, cpu_seconds)


@pytest.fixture(scope="session")
def kobako() -> Call:
    """Run the installed command; the cache is the suite's own ($KOBAKO_CACHE)."""
    return call_kobako


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M in int8 for all three targets, made by the command line. Tests must not change it."""
    out = tmp_path_factory.mktemp("built") / "package"
    shown = call_kobako("build", MODEL, "--recipe", "int8", "--out", out, "--json")
    assert shown.code == 0, shown.err[-4000:]
    return out


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 270M, a translator, in int8 for all three targets. Tests must not change it."""
    out = tmp_path_factory.mktemp("gemma") / "package"
    shown = call_kobako(
        "build", "gemma-3-270m", "--recipe", "int8", "--task", "translate", "--no-measure", "--out", out, "--json"
    )
    assert shown.code == 0, shown.err[-4000:]
    return out


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A copy of the package that a test may damage."""
    return Path(shutil.copytree(built, tmp_path / "copy"))
