"""Jobs on this machine, one after another: each uses all its cores already."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import KobakoError
from ..run import Observer
from . import Done, Order, build_order


class _Within:
    """Tells an observer of a job's stages, with the job's name before them."""

    def __init__(self, observer: Observer, job: str) -> None:
        self._observer, self._job = observer, job

    def started(self, stage: str) -> None:
        self._observer.started(f"{self._job}: {stage}")

    def progress(self, stage: str, fraction: float, text: str) -> None:
        self._observer.progress(f"{self._job}: {stage}", fraction, text)

    def finished(self, stage: str, seconds: float, cached: bool) -> None:
        self._observer.finished(f"{self._job}: {stage}", seconds, cached)

    def failed(self, stage: str, error: KobakoError) -> None:
        self._observer.failed(f"{self._job}: {stage}", error)


class LocalExecutor:
    """Fulfils `Executor`."""

    def run(self, orders: Sequence[Order], observer: Observer) -> list[Done]:
        """One outcome per order; a failure does not stop the others."""
        return [build_order(order, _Within(observer, order.job.name)) for order in orders]
