"""Hand kobako damaged and hostile input by the hundred thousand, and print a table of what it did with it.

Usage: scripts/fuzz [--cases N] [--seed N] [SUBJECT …]

Every case must end in being accepted (and then the promises of its subject are checked) or in one of kobako's own
errors; a crash, a hang (20 s) or a broken promise is a failure and is printed with the smallest case that shows it.
Subjects are in tests/unit/hostile.py; `regions` flips every single byte of a signed package in turn. Exit code 1 after
any failure.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BATCH = 2000
HANG_S = 20


def cpu_s() -> float:
    """Seconds of processor of this process and its ended children; a clock tells of a machine's other work, too."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


class Hang(BaseException):
    """A case took longer than any may."""


class Count:
    """What became of the cases of one subject."""

    def __init__(self) -> None:
        self.cases = self.accepted = self.slowest_ms = 0
        self.failure = ""

    def watch(self, check: Callable[[Any], bool], case: Any) -> None:
        """Run one case under the alarm clock."""
        started = time.perf_counter()
        signal.alarm(HANG_S)
        try:
            self.accepted += check(case)
        finally:
            signal.alarm(0)
            self.cases += 1
            self.slowest_ms = max(self.slowest_ms, int(1000 * (time.perf_counter() - started)))


def fuzz(subject: Any, cases: int, seed: int) -> Count:
    """`cases` cases of a subject, in batches with seeds of their own; stops at the first failure, made small."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    count = Count()
    batch = 0
    while count.cases < cases and not count.failure:

        @seeded(seed + batch)
        @settings(
            max_examples=min(BATCH, cases - count.cases),
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(subject.cases)
        def run(case: Any) -> None:
            count.watch(subject.check, case)

        before = count.cases
        try:
            run()
        except BaseException:
            if isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], KeyboardInterrupt):
                raise
            count.failure = traceback.format_exc(limit=-6)
        batch += 1
        if count.cases == before:
            break
        if sys.stderr.isatty():
            print(f"\r{subject.name}: {count.cases:,}", end="", file=sys.stderr)
    return count


def regions(home: Path, seed: int) -> Count:
    """Every byte of every file of a signed package, one bit of it flipped, in turn."""
    from kobako.pipeline.errors import IntegrityError
    from kobako.pipeline.sign import load_key, sign, write_new_key
    from kobako.pipeline.signature.trust import trust_key
    from kobako.pipeline.verify import verify
    from tiny_package import write_package

    home.mkdir()
    package = write_package(home / "work", home / "toy-int8")
    write_new_key(home / "key.pem", None)
    sign(package, load_key(home / "key.pem", None, None, ()))
    trust, chance, count = trust_key(home / "key.pub"), random.Random(seed), Count()

    def check(place: tuple[Path, int]) -> bool:
        path, offset = place
        data = path.read_bytes()
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1 << chance.randrange(8)]) + data[offset + 1 :])
        try:
            verify(package, trust)
        except IntegrityError:
            return False
        finally:
            path.write_bytes(data)
        count.failure += f"not noticed: byte {offset} of {path.relative_to(package)}\n"
        return True

    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        for offset in range(path.stat().st_size):
            count.watch(check, (path, offset))
    return count


def main() -> int:
    """Fuzz what was asked for; 1 after any failure."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help="words of subjects' names [default: all]")
    parser.add_argument("--cases", type=int, default=100_000, help="of each subject [default: 100000]")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests" / "unit"), str(ROOT / "scripts" / "editable")]
    from hostile import subjects
    from kobako.pipeline import jail

    def hang(*_: object) -> None:
        raise Hang(f"longer than {HANG_S} s")

    signal.signal(signal.SIGALRM, hang)
    jail.TIME_S = 0.5  # what does not end is refused sooner, so that many can be tried
    failed = False
    print(
        "| subject | cases | accepted | refused | slowest | CPU seconds | failures |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        made: list[tuple[str, Callable[[], Count]]] = [
            (one.name, lambda one=one: fuzz(one, asked.cases, asked.seed))
            for one in subjects(home)  # type: ignore[misc]
        ]
        made.append(("regions of a signed package", lambda: regions(home / "regions", asked.seed)))
        for name, run in made:
            if asked.subjects and not any(word.casefold() in name.casefold() for word in asked.subjects):
                continue
            started = cpu_s()
            count = run()
            failed = failed or bool(count.failure)
            print(
                f"\r| {name} | {count.cases:,} | {count.accepted:,} | {count.cases - count.accepted:,} | "
                f"{count.slowest_ms:,} ms | {cpu_s() - started:,.0f} | {'FAILED' if count.failure else 'none'} |",
                flush=True,
            )
            if count.failure:
                print(count.failure, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
