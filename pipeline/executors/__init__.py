"""Where the jobs of a matrix run: here, one after another (`local`), or on a Ray cluster (`ray_cluster`).

A job is independent of every other, and says what memory and cores it needs. An executor gives each an outcome,
whatever happens to it: a job that fails is not the end of the others.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..contracts import RECIPES, ExportOptions
from ..errors import KobakoError, TargetCrashed, by_name
from ..matrix import Job
from ..registry.addresses import without_secrets
from ..remote import without_secrets_of
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
    """What came of a job.

    Attributes:
        package: as it may be shown, a URL without its login.
        machine: where it ran.
        error: the class of what went wrong, or empty.
    """

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
    """Build one order on this machine. Whatever it raises is the outcome: the other orders have their turn."""
    started = time.monotonic()
    package = f"{order.out.rstrip('/')}/{order.job.name}"
    try:
        peak, proven = _build(order, package, observer)
    except KobakoError as error:
        return failed(order, error, time.monotonic() - started)
    except Exception as error:
        return failed(order, _unexpected(error), time.monotonic() - started)
    seconds = time.monotonic() - started
    return Done(
        name=order.job.name, package=without_secrets(package) if _is_url(package) else package, machine=platform.node(),
        seconds=seconds, peak_rss_bytes=peak, proven=proven,
    )  # fmt: skip


def failed(order: Order, error: KobakoError, seconds: float) -> Done:
    """The outcome of an order that could not be built; it is shown, so the logins of the order's URLs are left out."""
    urls = [url for url in (order.out, order.shared) if _is_url(url)]
    what, next_step = (without_secrets_of(text, *urls) for text in (error.what, error.next_step))
    return Done(
        name=order.job.name, package="", machine=platform.node(), seconds=seconds, error=type(error).__name__,
        what=what, next_step=next_step,
    )  # fmt: skip


def _unexpected(error: Exception) -> TargetCrashed:
    """The error for one that kobako did not expect, which ends its job and no other."""
    told = "Please report it."
    with suppress(OSError):  # a full disk, perhaps: the row of the table is worth more
        with tempfile.NamedTemporaryFile("w", prefix="kobako-bug-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        told = f"Details are in {file.name} on that machine; please report them."
    return TargetCrashed(f"kobako met an error it did not expect: {type(error).__name__}: {error}.", told)


def _is_url(place: str) -> bool:
    return "://" in place


def _build(order: Order, package: str, observer: Observer) -> tuple[int, tuple[str, ...]]:
    from typing import cast

    from ..build import build
    from ..cache import Cache, default_root
    from ..licences import Policy
    from ..run import Request
    from ..shared_cache import SharedCache
    from .sending import Destination

    job = order.job
    remote = Destination(package) if _is_url(order.out) else None
    if remote is not None:
        remote.check()  # before hours of work, and not after them
    root = Path(order.cache).absolute() if order.cache else default_root()
    local = Path(package) if remote is None else root / "orders" / job.name
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
    if remote is not None:
        remote.send(local)
        shutil.rmtree(local)
    return result.peak_rss_bytes, tuple(name for name, report in result.reports.items() if report.passed)


def crashed(order: Order, reason: str, seconds: float) -> Done:
    """The outcome of an order whose machine was lost too often."""
    error = TargetCrashed(f"{order.job.name}: {reason}.", "What was finished is in the cache: run it again.")
    return failed(order, error, seconds)
