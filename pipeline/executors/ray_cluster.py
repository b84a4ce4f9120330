"""Jobs on a Ray cluster that exists already: memory and cores as Ray's resources, another try when a machine is lost.

Every machine needs kobako installed (the same version) and, unless they share a file system, a shared cache and an
output URL. A job whose machine dies begins again elsewhere, with the stages that are in the cache.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from ..codec import from_json, to_json
from ..errors import KobakoError, MissingDependency, NetworkError, NotEnoughMemory
from ..run import Observer
from . import Done, Order, build_order, crashed

RETRIES = 3
POLL_S = 0.5
CONNECT_TIMEOUT_S = 10.0


class Board:
    """What each job is doing; an actor on the driver's machine, so that no lost worker takes it along."""

    def __init__(self) -> None:
        self._now: dict[str, tuple[float, str]] = {}

    def say(self, job: str, fraction: float, text: str) -> None:
        """A job's latest words."""
        self._now[job] = (fraction, text)

    def read(self) -> Mapping[str, tuple[float, str]]:
        """Everybody's latest words."""
        return dict(self._now)


class _ToBoard:
    """Tells the board what a build tells its observer; never waits for an answer."""

    def __init__(self, board: Any, job: str, stages: int) -> None:
        self._board, self._job, self._stages, self._done = board, job, stages, 0

    def _say(self, text: str) -> None:
        self._board.say.remote(self._job, min(self._done / self._stages, 1.0), text)

    def started(self, stage: str) -> None:
        self._say(stage)

    def progress(self, stage: str, fraction: float, text: str) -> None:
        """Too many to send."""

    def finished(self, stage: str, seconds: float, cached: bool) -> None:
        self._done += 1
        self._say(stage)

    def failed(self, stage: str, error: KobakoError) -> None:
        self._say(f"{stage} failed")


def _on_a_worker(order: Any, board: Any) -> Any:
    """What Ray runs: plain JSON values in and out, so that versions of classes never matter."""
    read = from_json(order, Order)
    stages = 5 + 2 * len(read.job.targets.split()) + len(read.job.targets.split()) * read.measure
    return to_json(build_order(read, _ToBoard(board, read.job.name, stages)))


class RayExecutor:
    """Fulfils `Executor`. `address`: of the cluster, as Ray writes it; None = $RAY_ADDRESS, or the one here."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS") or "auto"

    def run(self, orders: Sequence[Order], observer: Observer) -> list[Done]:
        """Give every order to the cluster and wait.

        Raises MissingDependency, NetworkError when there is no cluster, NotEnoughMemory when no machine of it is large
        enough for an order.
        """
        with redirect_stdout(sys.stderr):  # Ray prints its warnings there, among what a script reads
            return self._run(self._connected(), orders, observer)

    def _run(self, ray: Any, orders: Sequence[Order], observer: Observer) -> list[Done]:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        wanted = [resources(order, nodes) for order in orders]
        here = ray.get_runtime_context().get_node_id()
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id=here, soft=False)
        board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=affinity).remote()
        task = ray.remote(_on_a_worker)
        waiting = {}
        for order, needs in zip(orders, wanted, strict=True):
            observer.started(order.job.name)
            ref = task.options(name=order.job.name, max_retries=RETRIES, **needs).remote(to_json(order), board)
            waiting[ref] = order
        return self._wait(ray, waiting, board, observer)

    def _connected(self) -> Any:
        try:
            import ray  # type: ignore[import-untyped,import-not-found,unused-ignore]
            import ray.util.scheduling_strategies
        except ImportError as error:
            raise MissingDependency("--executor ray needs the package ray.", "pip install 'kobako[ray]'") from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not ray.is_initialized():
            _require_listener(self._address)
            try:
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise NetworkError(
                    f"there is no Ray cluster at {self._address}: {error}.", "Start one: ray start --head"
                ) from error
        return ray

    def _wait(self, ray: Any, waiting: Mapping[Any, Order], board: Any, observer: Observer) -> list[Done]:
        started, done = time.monotonic(), {}
        left = list(waiting)
        while left:
            ready, left = ray.wait(left, timeout=POLL_S)
            for job, (fraction, text) in ray.get(board.read.remote()).items():
                observer.progress(job, fraction, text)
            for ref in ready:
                order = waiting[ref]
                done[ref] = outcome = self._outcome(ray, ref, order, time.monotonic() - started)
                if failure := outcome.failure():
                    observer.failed(order.job.name, failure)
                else:
                    observer.finished(order.job.name, outcome.seconds, cached=False)
        ray.kill(board)
        return [done[ref] for ref in waiting]

    @staticmethod
    def _outcome(ray: Any, ref: Any, order: Order, seconds: float) -> Done:
        try:
            return from_json(ray.get(ref), Done)
        except ray.exceptions.RayError as error:  # lost for good, or killed by Ray for its memory
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            return crashed(order, reason, seconds)


def _require_listener(address: str) -> None:
    """Raise NetworkError when nothing listens at ``host:port``: Ray itself would try for ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise NetworkError(f"there is no Ray cluster at {address}: {error}.", "Start one: ray start --head") from error


def resources(order: Order, nodes: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """What Ray shall keep free for an order: a core per target (at most a machine's), and the memory it declares.

    Raises NotEnoughMemory when no node has that much: Ray would wait for ever.
    """
    wanted: dict[str, float] = {"num_cpus": max(1, len(order.job.targets.split()))}
    if order.job.memory_bytes:
        wanted["memory"] = order.job.memory_bytes
    fitting = [node.get("CPU", 0) for node in nodes if node.get("memory", 0) >= wanted.get("memory", 0)]
    if not fitting or max(fitting) < 1:
        raise NotEnoughMemory(
            f"no machine of the cluster has a core and {wanted.get('memory', 0) / 1e9:.1f} GB for {order.job.name}.",
            "Add a larger one, or declare less with memory_gb.",
        )
    wanted["num_cpus"] = min(wanted["num_cpus"], max(fitting))
    return wanted
