"""Disks that fill up, and places that cannot be written or do not tell upper case from lower."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.ground import (
    BAD_ARTIFACT,
    NOT_ENOUGH_DISK,
    OUTPUT_ERROR,
    Ground,
    Row,
    digests,
    essence,
    hidden,
    judge,
    run,
    small_disk,
)

ROOM_BYTES = 2**30


def builds(ground: Ground, points: int) -> Row:
    """Cache and package on one small disk, larger at each point; then the same command with room."""
    row = Row(f"disk full during a build, {points} sizes")
    used = sum(path.stat().st_size for place in (ground.built.cache, ground.built.package)
               for path in place.rglob("*") if path.is_file())  # fmt: skip
    reference = essence(ground.built.package)
    for point in range(1, points + 1):
        disk = ground.home / "disk"
        with small_disk(disk, max(int(used * point / points), 65_536)) as resize:
            command, cache = ground.built.command(disk / "package"), str(disk / "cache")
            done = run(command, KOBAKO_CACHE=cache)
            _note(row, done, f"size {point}/{points}")
            judge(row, disk / "package", f"size {point}/{points}")
            resize(ROOM_BYTES)
            again = run(command, KOBAKO_CACHE=cache)
            row.expect(again.returncode == 0, f"size {point}/{points}: with room: {again.stderr[-300:]}")
            row.expect(essence(disk / "package") == reference, f"size {point}/{points}: the result differs")
    return row


def _note(row: Row, done: subprocess.CompletedProcess[str], point: str) -> None:
    row.tried += 1
    row.survived += done.returncode == 0
    row.refused += done.returncode == NOT_ENOUGH_DISK
    row.expect(done.returncode in (0, NOT_ENOUGH_DISK), f"{point}: exit {done.returncode}: {done.stderr[-400:]}")


def roads(ground: Ground, points: int) -> list[Row]:
    """Publishing into, and pulling onto, a small disk."""
    key, size_bytes = ground.signer.public, 12_100_000
    site = ground.fresh("disk-site") / "toy"
    run(ground.kobako("publish", ground.package, site, "--key", key))
    rows = []
    for name, command, there in (
        ("publish", ("publish", ground.package, ground.home / "disk" / "toy"), ""),
        ("pull", ("pull", site, "--out", ground.home / "disk" / "toy"), "toy"),
    ):
        row = Row(f"disk full during a {name}, {points} sizes")
        for point in range(1, points + 1):
            disk = ground.home / "disk"
            with small_disk(disk, int(size_bytes * point / points)) as resize:
                full = ground.kobako(*command, "--key", key, "--quiet")
                _note(row, run(full), f"size {point}/{points}")
                if there:
                    judge(row, disk / there, f"size {point}/{points}")
                else:
                    row.expect(row.wrong or _nothing_or_all(disk / "toy"), f"size {point}/{points}: half published")
                resize(ROOM_BYTES)
                again = run(full)
                row.expect(again.returncode == 0, f"size {point}/{points}: with room: {again.stderr[-300:]}")
                result = disk / "toy" if there else next(p for p in (disk / "toy").iterdir() if p.is_dir())
                row.expect(digests(result) == digests(ground.package), f"size {point}/{points}: the result differs")
                row.expect(not there or hidden(disk) == [], f"left on the disk: {hidden(disk)}")
        rows.append(row)
    return rows


def _nothing_or_all(place: Path) -> bool:
    """A failed publish leaves no version and no index."""
    if (place / "index.json").exists():
        return True
    return not place.exists() or not [path for path in place.iterdir() if path.name != ".kobako.lock"]


def read_only(ground: Ground) -> Row:
    """A file system that nobody may write: refused with OutputError, and nothing else is touched."""
    row = Row("read-only file system")
    site = ground.fresh("ro-site") / "toy"
    key = ground.signer.public
    run(ground.kobako("publish", ground.package, site, "--key", key))
    disk = ground.home / "read-only"
    built = ground.built
    with small_disk(disk, ROOM_BYTES, ",ro"):
        for name, command, cache in (
            ("build to", built.command(disk / "package"), built.cache),
            ("build with the cache on", built.command(ground.fresh("ro") / "package"), disk / "cache"),
            ("publish to", ground.kobako("publish", ground.package, disk / "toy", "--key", key), built.cache),
            ("pull to", ground.kobako("pull", site, "--out", disk / "toy", "--key", key), built.cache),
        ):
            done = run(command, KOBAKO_CACHE=str(cache))
            row.tried += 1
            row.refused += done.returncode == OUTPUT_ERROR
            row.expect(done.returncode == OUTPUT_ERROR, f"{name}: exit {done.returncode}: {done.stderr[-300:]}")
    subprocess.run(["mount", "--bind", str(site), str(disk)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], check=True)
        out = ground.fresh("ro-out") / "package"
        done = run(ground.kobako("pull", disk, "--out", out, "--key", key))
        row.tried += 1
        row.survived += done.returncode == 0
        row.expect(done.returncode == 0 and digests(out) == digests(ground.package), f"pull from: {done.stderr[-300:]}")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return row


def case_insensitive(ground: Ground) -> Row:
    """A disk where README and readme are one file, and where there are neither hard nor symbolic links."""
    row, key = Row("case-insensitive file system"), ground.signer.public
    with insensitive_disk(ground.home) as (disk, kind):
        row.fault += f" ({kind})"
        for command in (
            ground.kobako("publish", ground.package, disk / "site", "--key", key),
            ground.kobako("pull", disk / "site", "--out", disk / "package", "--key", key),
            ground.kobako("pull", disk / "site", "--out", disk / "package", "--key", key, "--target", "litert"),
            ground.kobako("verify", disk / "package", "--key", key),
        ):
            done = run(command)
            row.tried += 1
            row.survived += done.returncode == 0
            row.expect(done.returncode == 0, f"{command[3]}: {done.stderr[-300:]}")
        _doubles(ground, row, disk)
    return row


def case_insensitive_build(ground: Ground) -> Row:
    """A build with its cache and its package there."""
    row, built = Row("a build on a case-insensitive file system"), ground.built
    with insensitive_disk(ground.home) as (disk, kind):
        row.fault += f" ({kind})"
        done = run(built.command(disk / "built"), KOBAKO_CACHE=str(disk / "cache"))
        row.tried += 1
        row.survived += done.returncode == 0
        row.expect(done.returncode == 0, f"exit {done.returncode}: {done.stderr[-300:]}")
        row.expect(essence(disk / "built") == essence(built.package), "a build there differs")
    return row


def _doubles(ground: Ground, row: Row, disk: Path) -> None:
    """An index that lists names which are one file there is refused before anything is written."""
    index = disk / "site" / "index.json"
    data = json.loads(index.read_text())
    files = data["versions"][data["latest"]]["files"]
    for number, change in enumerate((str.upper, str.title)):
        data["versions"][data["latest"]]["files"] = [*files, files[0] | {"path": change(files[0]["path"])}]
        index.write_text(json.dumps(data))
        out = disk / f"doubles-{number}"
        done = run(ground.kobako("pull", disk / "site", "--out", out, "--key", ground.signer.public))
        row.tried += 1
        row.refused += done.returncode == BAD_ARTIFACT
        row.expect(done.returncode == BAD_ARTIFACT and not out.exists(), f"names in capitals: {done.stderr[-300:]}")


INSENSITIVE = (
    ("FAT", "mkfs.vfat", "mount -t vfat"),
    ("exFAT", "mkfs.exfat", "mount -t exfat"),
    ("exFAT through FUSE", "mkfs.exfat", "mount.exfat-fuse"),
)
"""A kind, what makes it, and what mounts it; the last are Debian's exfatprogs and exfat-fuse."""


@contextmanager
def insensitive_disk(home: Path) -> Iterator[tuple[Path, str]]:
    """A real file system that does not tell capitals apart, and its kind. Raises PermissionError without any."""
    disk = home / "insensitive"
    disk.mkdir(exist_ok=True)
    image = home / "insensitive.img"
    tried = ((kind, _mounted(image, disk, make, mount)) for kind, make, mount in INSENSITIVE)
    kind, loop = next(((kind, loop) for kind, loop in tried if loop), ("", ""))
    if not loop:
        raise PermissionError("no case-insensitive file system can be mounted here")
    try:
        (disk / "Case").write_text("one")
        if not (disk / "cASE").exists():
            raise PermissionError(f"{kind} tells capitals apart here")
        yield disk, kind
    finally:
        run(["umount", "-l", str(disk)])
        run(["losetup", "--detach", loop])


def _mounted(image: Path, disk: Path, make: str, mount: str) -> str:
    """The loop device of a new file system, mounted at `disk`; empty when that cannot be done."""
    programs = (make, mount.split(maxsplit=1)[0], "losetup")
    if os.geteuid() != 0 or not all(shutil.which(program) for program in programs):
        return ""
    with image.open("wb") as file:
        file.truncate(400_000_000)
    if run([make, str(image)]).returncode:
        return ""
    loop = run(["losetup", "--find", "--show", str(image)]).stdout.strip()
    if loop and run([*mount.split(), loop, str(disk)]).returncode:
        run(["losetup", "--detach", loop])
        return ""
    return loop


def clocks(ground: Ground) -> Row:
    """Files of a cache, a package and a source that are dated 1980 or 2100: dates decide nothing."""
    row = Row("clock skew: files dated 1980 and 2100")
    home = ground.fresh("clocks")
    cache, package = home / "cache", home / "package"
    shutil.copytree(ground.built.cache, cache)
    shutil.copytree(ground.built.package, package)
    for when in (315_532_800, 4_102_444_800):
        for path in [*cache.rglob("*"), *package.rglob("*")]:
            os.utime(path, (when, when))
        done = run(ground.built.command(package), KOBAKO_CACHE=str(cache))
        row.tried += 1
        row.survived += done.returncode == 0
        row.expect(done.returncode == 0, f"{when}: {done.stderr[-300:]}")
        row.expect(essence(package) == essence(ground.built.package), f"{when}: the package differs")
    return row
