"""Many at once: builds on one cache, pulls to one place and to many, publishes to one place."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.faults.ground import Ground, Row, digests, essence, hidden, run
from tests.unit.roads.file_server import FileServer

PATIENCE_S = 900


def _all_at_once(row: Row, commands: list[list[str]], **environment: str) -> None:
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )
        for command in commands
    ]
    for process in processes:
        _, said = process.communicate(timeout=PATIENCE_S)
        row.tried += 1
        row.survived += process.returncode == 0
        row.expect(process.returncode == 0, f"exit {process.returncode}: {said[-300:]}")


def builds(ground: Ground, count: int) -> Row:
    """The same build `count` times at once, on a cold cache: the work is done once, all get the same."""
    row = Row(f"{count} builds at once on one cold cache")
    home = ground.fresh("crowd")
    cache = home / "cache"
    outs = [home / "packages" / f"p{number}" for number in range(count)]
    _all_at_once(row, [ground.built.command(out) for out in outs], KOBAKO_CACHE=str(cache))
    for out in outs:
        row.expect(out.exists() and essence(out) == essence(ground.built.package), f"{out.name} differs")
    entries = [path.parent.name for path in cache.glob("*/*/entry.json")]
    row.expect(len(entries) == len(set(entries)), "a stage is in the cache twice")
    row.expect(not list((cache / "tmp").iterdir()), "left in the cache: work in progress")
    row.expect(hidden(home / "packages") == [], f"left beside the packages: {hidden(home / 'packages')}")
    return row


def builds_to_one_place(ground: Ground, count: int) -> Row:
    """`count` builds at once whose packages want the same directory."""
    row = Row(f"{count} builds at once to one directory")
    out = ground.fresh("crowd") / "package"
    _all_at_once(row, [ground.built.command(out) for _ in range(count)], KOBAKO_CACHE=str(ground.built.cache))
    row.expect(essence(out) == essence(ground.built.package), "the package differs")
    row.expect(hidden(out.parent) == [], f"left beside the package: {hidden(out.parent)}")
    return row


def pulls(ground: Ground, count: int) -> list[Row]:
    """`count` pulls at once: each to a place of its own, then all to one; from a slow web server."""
    home = ground.fresh("crowd-pulls")
    key = ground.signer.public
    run(ground.kobako("publish", ground.package, home / "site" / "toy", "--key", key))
    server = FileServer(home / "site")
    server.pause_s = 0.01
    rows = []
    try:
        for name, outs in (
            ("to places of their own", [home / "apart" / f"p{number}" for number in range(count)]),
            ("to one place", [home / "one" / "package"] * count),
        ):
            row = Row(f"{count} pulls at once {name}")
            commands = [ground.kobako("pull", f"{server.url}/toy", "--out", out, "--key", key) for out in outs]
            before = len(server.requests("model.tflite"))
            _all_at_once(row, commands)
            for out in outs:
                row.expect(digests(out) == digests(ground.package), f"{out.name} differs")
            row.expect(hidden(outs[0].parent) == [], f"left: {hidden(outs[0].parent)}")
            asked = len(server.requests("model.tflite")) - before
            row.expect(asked == len(set(outs)), f"the largest file was asked for {asked} times")
            rows.append(row)
    finally:
        server.close()
    return rows


def publishes(ground: Ground, count: int) -> Row:
    """`count` publishes of the same package at once into one directory."""
    row = Row(f"{count} publishes at once to one directory")
    place: Path = ground.fresh("crowd-publishes") / "site"
    command = ground.kobako("publish", ground.package, place, "--key", ground.signer.public)
    _all_at_once(row, [command] * count)
    versions = [path for path in place.iterdir() if path.is_dir()]
    row.expect(len(versions) == 1 and digests(versions[0]) == digests(ground.package), "what was published differs")
    return row
