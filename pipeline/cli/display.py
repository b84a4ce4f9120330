"""Progress on stderr: live bars on a terminal, one line a stage elsewhere, nothing when quiet."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..errors import KobakoError
from ..report.words import human_seconds


class QuietObserver:
    """Says nothing."""

    def started(self, stage: str) -> None: ...
    def progress(self, stage: str, fraction: float, text: str) -> None: ...
    def finished(self, stage: str, seconds: float, cached: bool) -> None: ...
    def failed(self, stage: str, error: KobakoError) -> None: ...

    def __enter__(self) -> QuietObserver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


class LineObserver(QuietObserver):
    """One line when a stage starts and one when it ends: for CI logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def started(self, stage: str) -> None:
        self._console.print(f"{stage} …", markup=False)

    def finished(self, stage: str, seconds: float, cached: bool) -> None:
        how = "from the cache" if cached else human_seconds(seconds)
        self._console.print(f"{stage}: {how}", markup=False)

    def failed(self, stage: str, error: KobakoError) -> None:
        self._console.print(f"{stage}: failed: {error.what}", markup=False)


class BarObserver(QuietObserver):
    """A live bar per running stage; finished stages stay above as lines."""

    def __init__(self, console: Console) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<18}"),
            BarColumn(24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[text]}"),
        )
        self._bars = Progress(*columns, console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> BarObserver:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def started(self, stage: str) -> None:
        with self._lock:
            self._tasks[stage] = self._bars.add_task(stage, total=1.0, text="")

    def progress(self, stage: str, fraction: float, text: str) -> None:
        with self._lock:
            if stage in self._tasks:
                self._bars.update(self._tasks[stage], completed=fraction, text=text.replace("\n", " ")[:48])

    def finished(self, stage: str, seconds: float, cached: bool) -> None:
        how = "[dim]from the cache" if cached else human_seconds(seconds)
        self._end(stage, f"[green]✓[/] {stage:<18} {how}")

    def failed(self, stage: str, error: KobakoError) -> None:
        self._end(stage, f"[red]✗[/] {stage:<18} failed")

    def _end(self, stage: str, line: str) -> None:
        with self._lock:
            if (task := self._tasks.pop(stage, None)) is not None:
                self._bars.remove_task(task)
            self._bars.console.print(line)


def observer(quiet: bool) -> QuietObserver:
    """The observer that fits standard error."""
    console = Console(stderr=True)
    if quiet:
        return QuietObserver()
    return BarObserver(console) if console.is_terminal else LineObserver(console)
