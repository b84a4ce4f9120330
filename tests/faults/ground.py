"""What all faults share: a tiny real build to hurt, the commands, and how a result is judged."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from kobako.pipeline.errors import KobakoError
from kobako.pipeline.verify import Verified, check_contents

from tests.conftest import TinyBuild, make_tiny_build
from tests.unit.roads.packages import Signer, make_package, noise

NOT_ENOUGH_DISK, OUTPUT_ERROR, BAD_ARTIFACT = 11, 12, 15


@dataclass
class Row:
    """One line of the table. `wrong`: what must never happen, one text for each time it did."""

    fault: str
    tried: int = 0
    survived: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    note: str = ""

    def expect(self, condition: object, text: str) -> None:
        if not condition:
            self.wrong.append(text)


@dataclass
class Ground:
    """A directory of its own, and a random generator, so that a run can be repeated."""

    home: Path
    seed: int = 0
    tiny: TinyBuild | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @cached_property
    def built(self) -> TinyBuild:
        return self.tiny or make_tiny_build(self.fresh("tiny"))

    @cached_property
    def signer(self) -> Signer:
        return Signer(self.home / "keys")

    @cached_property
    def package(self) -> Path:
        """A signed package of two targets, 12 MB of noise."""
        files = {
            "litert": {"litert/model.tflite": noise(8_000_000, 1), "litert/tokenizer.json": noise(9_000, 2)},
            "executorch": {"executorch/model.pte": noise(4_000_000, 3)},
        }
        return self.signer.sign(make_package(self.fresh("package") / "toy", files))

    def fresh(self, name: str) -> Path:
        """A new directory."""
        number = len(list(self.home.glob(f"{name}-*")))
        made = self.home / f"{name}-{number}"
        made.mkdir(parents=True)
        return made

    def kobako(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "kobako.pipeline.cli.main", *map(str, arguments)]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def killed(command: list[str], after_s: float, **environment: str) -> bool:
    """Start a command and kill -9 it after a while; whether it was still running then."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environment
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def seconds(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def digests(directory: Path, *parts: str) -> dict[str, str]:
    """SHA-256 of every file below, or of those below `parts` only."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and (not parts or path.relative_to(directory).parts[0] in parts)
    }


def essence(package: Path) -> dict[str, str]:
    """What two builds of the same thing must agree on: everything but the reports, which hold times."""
    return digests(package, "litert", "tokenizer", "golden")


def sound(package: Path) -> Verified | None:
    """The package when it is whole and undamaged; None when it is absent. Raises KobakoError when it is neither."""
    return check_contents(package, None) if package.exists() else None


def judge(row: Row, package: Path, moment: str) -> None:
    """A package is whole or absent; anything between is wrong."""
    try:
        sound(package)
    except KobakoError as error:
        row.wrong.append(f"{moment}: half-written: {error}")


def hidden(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("."))


@contextmanager
def small_disk(place: Path, size_bytes: int, options: str = "") -> Iterator[Callable[[int], None]]:
    """A file system of `size_bytes` at `place`; what it yields changes the size. Raises PermissionError."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}{options}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        raise PermissionError("only root may mount a file system")

    def resize(new_bytes: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={new_bytes}", str(place)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
