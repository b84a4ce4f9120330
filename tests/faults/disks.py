"""Disks that fill up, and places that cannot be written or do not tell upper case from lower."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.faults.ground import (
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
    """FAT, where README and readme are one file, and where there are no hard links."""
    row = Row("case-insensitive file system (FAT)")
    image, disk = ground.home / "fat.img", ground.home / "fat"
    disk.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(200_000_000)
    made = shutil.which("mkfs.vfat") and not run(["mkfs.vfat", str(image)]).returncode
    if not made or run(["mount", "-o", "loop", str(image), str(disk)]).returncode:
        row.note = "skipped: no FAT file system can be mounted here"
        return row
    try:
        key = ground.signer.public
        for command in (
            ground.kobako("publish", ground.package, disk / "site", "--key", key),
            ground.kobako("pull", disk / "site", "--out", disk / "package", "--key", key),
            ground.kobako("pull", disk / "site", "--out", disk / "package", "--key", key, "--target", "litert"),
            ground.built.command(disk / "built"),
        ):
            done = run(command, KOBAKO_CACHE=str(ground.built.cache))
            row.tried += 1
            row.survived += done.returncode == 0
            row.expect(done.returncode == 0, f"{command[3]}: {done.stderr[-300:]}")
        row.expect(essence(disk / "built") == essence(ground.built.package), "a build there differs")
        verified = run(ground.kobako("verify", disk / "package", "--key", key))
        row.expect(verified.returncode == 0, f"verify: {verified.stderr[-300:]}")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return row


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
