"""One build under way: what was asked for, who watches, and how a stage is run through the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from .cache import Cache, Entry, Made, stage_key
from .contracts import ExportOptions, Recipe
from .errors import KobakoError
from .licences import Policy
from .mixture import Goal
from .process import Workers


class Observer(Protocol):
    """Is told what the build is doing; the CLI draws it."""

    def started(self, stage: str) -> None: ...
    def progress(self, stage: str, fraction: float, text: str) -> None: ...
    def finished(self, stage: str, seconds: float, cached: bool) -> None: ...
    def failed(self, stage: str, error: KobakoError) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for.

    Attributes:
        out: the package directory, or None for ``dist/NAME-RECIPE``.
        memory_limit_bytes: largest resident memory of any process.
        jobs: how many stages may run side by side, where they fit into memory together.
        measure: also time each artifact in its engine.
        goal: a size or a loss that a mixture of 4 and 8 bits must meet; `recipe` is then what the mixture starts from.
        adapter: a LoRA adapter to merge, as the user named it; empty = none.
        slice: the nested model to take, as the user wrote it; empty = all of the checkpoint.
        calibration: the user's own calibration text; the recipe holds its digest.
        own_context: the context of `options` was not asked for: an encoder takes the longest text it was made for.
        licence_policy: what to do about a licence that is not plainly permissive (`kobako.pipeline.licences`).
    """

    model: str
    targets: tuple[str, ...]
    recipe: Recipe
    options: ExportOptions
    tasks: tuple[str, ...] = ()
    out: Path | None = None
    offline: bool = False
    allow_failing: bool = False
    memory_limit_bytes: int | None = None
    jobs: int | None = None
    measure: bool = True
    goal: Goal | None = None
    licence_policy: Policy = "warn"
    calibration: Path | None = None
    adapter: str = ""
    slice: str = ""
    own_context: bool = False

    @property
    def calibration_path(self) -> str:
        """Absolute, for workers; empty for kobako's own text."""
        return str(self.calibration.absolute()) if self.calibration else ""


@dataclass
class Run:
    """One build under way: the request, the shared tools, and what has happened so far.

    Attributes:
        threads: of each stage from here on; None = as the workers were made.
    """

    request: Request
    cache: Cache
    observer: Observer
    workers: Workers
    stages: list[Mapping[str, Any]] = field(default_factory=list)
    threads: int | None = None

    def stage(
        self,
        name: str,
        label: str,
        inputs: Mapping[str, Any],
        arguments: Callable[[Path], Mapping[str, Any]],
        threads: int | None = None,
    ) -> Entry:
        """Run one worker operation through the cache, and tell the observer."""

        def make(out: Path) -> Made:
            log = self.cache.log_path(name, stage_key(name, inputs))
            progress = partial(self.observer.progress, label)
            outcome = self.workers.run(
                name, arguments(out), log=log, progress=progress, threads=threads or self.threads
            )
            return Made(outcome.value, outcome.peak_rss_bytes)

        self.observer.started(label)
        try:
            entry = self.cache.get(name, inputs, make, lambda: self.workers.stopped)
        except KobakoError as error:
            self.observer.failed(label, error)
            raise
        self.observer.finished(label, entry.seconds, entry.hit)
        self.stages.append(
            {"stage": label, "seconds": entry.seconds, "cached": entry.hit, "peak_rss_bytes": entry.peak_rss_bytes}
        )
        return entry
