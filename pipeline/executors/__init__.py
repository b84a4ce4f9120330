"""Where the jobs of a matrix run: here, one after another (`local`), or on a Ray cluster (`ray_cluster`).

A job is independent of every other, and says what memory and cores it needs. An executor gives each an outcome,
whatever happens to it: a job that fails is not the end of the others.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..contracts import RECIPES, ExportOptions
from ..errors import KobakoError, TargetCrashed, by_name
from ..matrix import Job
from ..run import Observer


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job, and how it shall be built; only strings and numbers, since it may travel.

    Attributes:
        out: a directory, or an fsspec URL, below which the package gets a directory of its name.
        cache: of the machine that builds; empty = that machine's own.
        shared: fsspec URL of a cache that machines share; empty = none.
    """

    job: Job
    out: str
    cache: str = ""
    shared: str = ""
    measure: bool = True
    offline: bool = False
    allow_failing: bool = False
    licence_policy: str = "warn"


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a job. `error`: the class of what went wrong, or empty; `machine`: where it ran."""

    name: str
    package: str
    machine: str
    seconds: float
    peak_rss_bytes: int = 0
    proven: tuple[str, ...] = ()
    error: str = ""
    what: str = ""
    next_step: str = ""

    def failure(self) -> KobakoError | None:
        """The error to raise for it."""
        return by_name(self.error)(self.what, self.next_step) if self.error else None


class Executor(Protocol):
    """Runs orders."""

    def run(self, orders: Sequence[Order], observer: Observer) -> list[Done]:
        """One outcome per order, in their order; the observer is told of jobs as it is of stages elsewhere."""
        ...


def build_order(order: Order, observer: Observer) -> Done:
    """Build one order on this machine. Never raises a KobakoError: it is the outcome."""
    started = time.monotonic()
    package = f"{order.out.rstrip('/')}/{order.job.name}"
    try:
        peak, proven = _build(order, package, observer)
    except KobakoError as error:
        return failed(order, error, time.monotonic() - started)
    seconds = time.monotonic() - started
    return Done(
        name=order.job.name, package=package, machine=platform.node(), seconds=seconds, peak_rss_bytes=peak,
        proven=proven,
    )  # fmt: skip


def failed(order: Order, error: KobakoError, seconds: float) -> Done:
    """The outcome of an order that could not be built."""
    kind = type(error).__name__
    return Done(
        name=order.job.name, package="", machine=platform.node(), seconds=seconds, error=kind, what=error.what,
        next_step=error.next_step,
    )  # fmt: skip


def _build(order: Order, package: str, observer: Observer) -> tuple[int, tuple[str, ...]]:
    from typing import cast

    from ..build import build
    from ..cache import Cache, default_root
    from ..licences import Policy
    from ..run import Request
    from ..shared_cache import SharedCache

    job, remote = order.job, "://" in order.out
    root = Path(order.cache).absolute() if order.cache else default_root()
    local = root / "orders" / job.name if remote else Path(package)
    request = Request(
        model=job.model,
        targets=tuple(job.targets.split()),
        recipe=RECIPES[job.recipe],
        options=ExportOptions(context_tokens=job.context),
        tasks=tuple(job.tasks.split()),
        out=local,
        offline=order.offline,
        allow_failing=order.allow_failing,
        measure=order.measure,
        licence_policy=cast("Policy", order.licence_policy),
    )
    result = build(request, Cache(root, SharedCache(order.shared) if order.shared else None), observer)
    if remote:
        _send(local, package)
        shutil.rmtree(local)
    return result.peak_rss_bytes, tuple(name for name, report in result.reports.items() if report.passed)


def _send(package: Path, url: str) -> None:
    """Copy a package to a URL, the manifest last: without it nobody takes it for one."""
    import fsspec  # type: ignore[import-untyped]

    from ..errors import NetworkError
    from ..manifest import MANIFEST_FILE

    try:
        files, root = fsspec.core.url_to_fs(url)
        names = [path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()]
        for name in sorted(names, key=lambda name: name == MANIFEST_FILE):
            files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
            files.put_file(str(package / name), f"{root}/{name}")
    except (OSError, ValueError) as error:
        raise NetworkError(f"{url} cannot be written: {error}.", "What was built is in the cache.") from error


def crashed(order: Order, reason: str, seconds: float) -> Done:
    """The outcome of an order whose machine was lost too often."""
    error = TargetCrashed(f"{order.job.name}: {reason}.", "What was finished is in the cache: run it again.")
    return failed(order, error, seconds)
