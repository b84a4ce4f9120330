"""Servers that do not do what they should: whatever they send, a pull brings what was signed, or nothing."""

from __future__ import annotations

from collections.abc import Callable

from kobako.pipeline.errors import KobakoError
from kobako.pipeline.publish import PublishRequest, publish
from kobako.pipeline.pull import PullRequest, pull
from kobako.pipeline.registry import transport
from kobako.pipeline.registry.roads import open_destination, open_source

from tests.faults.ground import Ground, Row, digests, hidden
from tests.unit.roads.file_server import Faults, FileServer
from tests.unit.roads.packages import Watching

MODEL = "litert/model.tflite"
CUT = 3_000_000
OTHER = bytes(8_000_000)

KINDS: dict[str, Callable[[], Faults]] = {
    "cuts three times": lambda: Faults(only=MODEL, cuts=[CUT, CUT, 10]),
    "cuts, and ignores Range": lambda: Faults(only=MODEL, cuts=[CUT], ignore_range=True),
    "cuts, and gives no ETag": lambda: Faults(only=MODEL, cuts=[CUT], no_validator=True),
    "cuts, and gives a weak ETag": lambda: Faults(only=MODEL, cuts=[CUT], weak_etag=True),
    "cuts, then continues from elsewhere": lambda: Faults(only=MODEL, cuts=[CUT], wrong_range=True),
    "cuts, then continues with other bytes": lambda: Faults(only=MODEL, cuts=[CUT], range_shift=1),
    "stalls once": lambda: Faults(only=MODEL, stalls=[CUT]),
    "stalls always": lambda: Faults(only=MODEL, stalls=[10] * 9, ignore_range=True),
    "is busy for a while (503, 429)": lambda: Faults(only=MODEL, errors=[503, 429, 503]),
    "is broken for good (500)": lambda: Faults(only=MODEL, errors=[500] * 99),
    "changes the file between requests": lambda: Faults(only=MODEL, cuts=[CUT], changes=OTHER),
    "changes it, and ignores If-Range": lambda: Faults(only=MODEL, cuts=[CUT], changes=OTHER, ignore_if_range=True),
    "says it is longer": lambda: Faults(only=MODEL, lie_bytes=1000),
    "says it is shorter": lambda: Faults(only=MODEL, lie_bytes=-1000),
    "never ends": lambda: Faults(only=MODEL, endless=True),
    "sends one wrong bit, once": lambda: Faults(only=MODEL, corrupt=1),
    "sends one wrong bit, always": lambda: Faults(only=MODEL, corrupt=99),
    "compresses although asked not to": lambda: Faults(only=MODEL, gzip=True),
    "sends another index": lambda: Faults(only="index.json", corrupt=1),
    "never ends the index": lambda: Faults(only="index.json", endless=True),
    "sends another signature": lambda: Faults(only="model.sig", corrupt=99),
    "sends another manifest": lambda: Faults(only="kobako.json", corrupt=99),
}


def pulls(ground: Ground) -> list[Row]:
    """One row per kind of server: the pull, and a second one once the server is well again."""
    home = ground.fresh("servers")
    request = PublishRequest(package=ground.package, trust=ground.signer.trust)
    publish(request, open_destination(str(home / "site" / "toy")), Watching())
    waited, timeout = transport.FIRST_WAIT_S, transport.TIMEOUT_S
    transport.FIRST_WAIT_S, transport.TIMEOUT_S = 0.01, 0.5
    try:
        return [_pull(ground, name, make()) for name, make in KINDS.items()]
    finally:
        transport.FIRST_WAIT_S, transport.TIMEOUT_S = waited, timeout


def _pull(ground: Ground, name: str, faults: Faults) -> Row:
    row = Row(f"a server that {name}", tried=1)
    site = next(ground.home.glob("servers-*")) / "site"
    out = ground.fresh("served") / "package"
    server = FileServer(site)
    server.faults = faults
    request = PullRequest(targets=(), trust=ground.signer.trust, out=out)
    try:
        try:
            pull(open_source(f"{server.url}/toy"), request, Watching())
            row.survived = 1
        except KobakoError as error:
            row.refused, row.note = 1, type(error).__name__
            row.expect(not out.exists(), "refused, but something is there")
        else:
            row.expect(digests(out) == digests(ground.package), "something else was accepted")
        server.faults = Faults()
        server.changed.clear()
        pull(open_source(f"{server.url}/toy"), request, Watching())
        row.expect(digests(out) == digests(ground.package), "the second pull differs")
        row.expect(hidden(out.parent) == [], f"left: {hidden(out.parent)}")
    finally:
        server.close()
    return row
