"""One flipped bit in every region of every file: always detected, and never accepted from a source."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from kobako.pipeline.errors import KobakoError
from kobako.pipeline.pull import PullRequest, pull
from kobako.pipeline.registry.roads import open_source
from kobako.pipeline.verify import verify

from tests.faults.ground import Ground, Row, digests
from tests.unit.roads.packages import Watching


def places(size_bytes: int, regions: int) -> list[int]:
    """The first, the last, and one byte in every region of a file."""
    step = max(1, size_bytes // regions)
    return sorted({0, size_bytes - 1, *range(step // 2, size_bytes, step)})


def flipped(path: Path, regions: int, ground: Ground) -> Iterator[int]:
    """Flip one bit at each place in turn; it is flipped back when the next one is asked for."""
    for place in places(path.stat().st_size, regions):
        bit = 1 << ground.random.randrange(8)
        for last in (False, True):
            with path.open("r+b") as file:
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ bit]))
            if not last:
                yield place


def packages(ground: Ground, regions: int) -> Row:
    """A signed package of the tiny build: `verify` must refuse every flip."""
    row = Row("a bit flipped in a package, then verify")
    package = ground.fresh("flips") / "package"
    shutil.copytree(ground.built.package, package)
    ground.signer.sign(package)
    for path in sorted(path for path in package.rglob("*") if path.is_file() and path.stat().st_size):
        for place in flipped(path, regions, ground):
            row.tried += 1
            try:
                verify(package, ground.signer.trust)
            except KobakoError:
                row.refused += 1
            else:
                row.wrong.append(f"{path.relative_to(package)} at byte {place}: accepted")
    verify(package, ground.signer.trust)
    row.note = f"{len(digests(package))} files, up to {regions} regions each"
    return row


def sources(ground: Ground, regions: int) -> Row:
    """A published package, its index included: a pull refuses, or brings exactly what was signed."""
    row = Row("a bit flipped in a published package, then pull")
    home = ground.fresh("flip-sources")
    small = ground.signer.sign(_small(home))
    from kobako.pipeline.publish import PublishRequest, publish
    from kobako.pipeline.registry.roads import open_destination

    publish(PublishRequest(package=small, trust=ground.signer.trust), open_destination(str(home / "site")), Watching())
    expected = digests(small)
    for path in sorted(path for path in (home / "site").rglob("*") if path.is_file() and path.stat().st_size):
        for place in flipped(path, regions, ground):
            row.tried += 1
            out = home / "out"
            try:
                pull(
                    open_source(str(home / "site")),
                    PullRequest(targets=(), trust=ground.signer.trust, out=out),
                    Watching(),
                )
            except KobakoError:
                row.refused += 1
                row.expect(not out.exists(), f"{path.name} at byte {place}: refused, but something is there")
            else:
                row.survived += 1
                row.expect(digests(out) == expected, f"{path.name} at byte {place}: something else was accepted")
            for left in (out, *home.glob(".out.*")):  # whole files of an earlier pull would hide the flip
                shutil.rmtree(left, ignore_errors=True)
    row.note = "came through: the same content lies under another name, and is read only once"
    return row


def _small(home: Path) -> Path:
    from tests.unit.roads.packages import make_package, target_files

    return make_package(home / "small", target_files(size_bytes=20_000))
