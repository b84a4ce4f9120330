"""kill -9 at random moments: what is there afterwards is whole, and the same command goes on to the same result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from kobako.pipeline.pull import PullRequest, pull
from kobako.pipeline.registry.roads import open_source

from tests.faults.ground import Ground, Row, digests, essence, hidden, judge, killed, run, seconds
from tests.unit.roads.file_server import Faults, FileServer
from tests.unit.roads.packages import Watching, rewrite


def builds(ground: Ground, times: int) -> Row:
    """Kill builds; what stays in the cache is used by the next. A build that ends by itself begins from nothing."""
    row = Row(f"kill -9 of a build, {times} moments")
    home = ground.fresh("killed-builds")
    out, cache = home / "package", home / "cache"
    reference, whole_s = essence(ground.built.package), ground.built.seconds
    completed = 0
    while row.tried < times:
        if out.exists():
            row.expect(essence(out) == reference, f"a build after {row.tried} kills differs")
            completed += 1
            shutil.rmtree(out)
            shutil.rmtree(cache, ignore_errors=True)
        moment = ground.random.uniform(0.02, 1.0) * whole_s
        if killed(ground.built.command(out), moment, KOBAKO_CACHE=str(cache)):
            row.tried += 1
            before = len(row.wrong)
            judge(row, out, f"after {moment:.2f} s")
            row.survived += len(row.wrong) == before
    done = run(ground.built.command(out), KOBAKO_CACHE=str(cache))
    row.expect(done.returncode == 0, f"the last build failed: {done.stderr[-300:]}")
    row.expect(out.exists() and essence(out) == reference, "the last build differs")
    row.expect(hidden(home) == [], f"left beside the package: {hidden(home)}")
    row.expect(not list((cache / "tmp").iterdir()), "left in the cache: work in progress")
    row.note = f"{completed + 1} builds completed between, all alike"
    return row


def publishes(ground: Ground, times: int) -> Row:
    """Kill publishes of ever new versions; whatever the index names can be pulled whole at every moment."""
    row = Row(f"kill -9 of a publish, {times} moments")
    home = ground.fresh("killed-publishes")
    place, key = home / "site", ground.signer.public
    whole_s = seconds(lambda: run(ground.kobako("publish", ground.package, home / "other", "--key", key)))
    run(ground.kobako("publish", ground.package, place, "--key", key))
    known = {json.loads((place / "index.json").read_text())["latest"]: digests(ground.package)}
    number = 0
    while row.tried < times:
        number += 1
        changes = {"litert/model.tflite": ground.random.randbytes(8_000_000), "README.md": str(number).encode()}
        package = ground.signer.sign(rewrite(ground.package, home / "new", changes))
        if killed(ground.kobako("publish", package, place, "--key", key), ground.random.uniform(0.4, 1.05) * whole_s):
            row.tried += 1
            before = len(row.wrong)
            _pull_newest(ground, row, place, known, digests(package))
            row.survived += len(row.wrong) == before
        else:
            known[json.loads((place / "index.json").read_text())["latest"]] = digests(package)
        shutil.rmtree(package)
    done = run(ground.kobako("publish", ground.package, place, "--key", key))
    row.expect(done.returncode == 0, f"the last publish failed: {done.stderr[-300:]}")
    named = set(json.loads((place / "index.json").read_text())["versions"])
    there = {path.name for path in place.iterdir()} - {"index.json", ".kobako.lock"}
    row.expect(there == named, f"left in the directory: {sorted(there ^ named)}")
    return row


def _pull_newest(
    ground: Ground, row: Row, place: Path, known: dict[str, dict[str, str]], tried: dict[str, str]
) -> None:
    out = ground.fresh("pulled") / "package"
    source = open_source(str(place))
    done = pull(source, PullRequest(targets=(), trust=ground.signer.trust, out=out), Watching())
    expected = known.setdefault(done.version, tried)  # killed after the index was renamed: it is published
    row.expect(digests(out) == expected, f"version {done.version} is not what was published")
    shutil.rmtree(out.parent)


def pulls(ground: Ground, times: int) -> Row:
    """Kill pulls from a web server that also breaks off now and then."""
    row = Row(f"kill -9 of a pull, {times} moments")
    home = ground.fresh("killed-pulls")
    run(ground.kobako("publish", ground.package, home / "site" / "toy", "--key", ground.signer.public))
    server = FileServer(home / "site")
    server.pause_s = 0.02
    out = home / "out" / "package"
    command = ground.kobako("pull", f"{server.url}/toy", "--out", out, "--key", ground.signer.public, "--quiet")
    try:
        whole_s = seconds(lambda: run(command))
        row.expect(digests(out) == digests(ground.package), "the first pull differs")
        completed = 0
        while row.tried < times:
            if out.exists():
                row.expect(digests(out) == digests(ground.package), f"a pull after {row.tried} kills differs")
                completed += 1
                shutil.rmtree(out)
            server.faults = Faults(only="model.tflite", cuts=[ground.random.randrange(8_000_000)])
            if killed(command, ground.random.uniform(0.3, 1.0) * whole_s):
                row.tried += 1
                before = len(row.wrong)
                judge(row, out, f"kill {row.tried}")
                row.survived += len(row.wrong) == before
        done = run(command)
        row.expect(done.returncode == 0, f"the last pull failed: {done.stderr[-300:]}")
        row.expect(digests(out) == digests(ground.package), "the last pull differs")
        row.expect(hidden(out.parent) == [], f"left beside the package: {hidden(out.parent)}")
        row.note = f"{completed} pulls completed between, all alike"
    finally:
        server.close()
    return row
