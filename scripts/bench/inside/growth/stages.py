"""Single stages in processes of their own, as a build runs them: CPU time, peak memory and size."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .checkpoint import write_checkpoint
from .shapes import AXES, Shape

PREFILL_TOKENS = 64


@dataclass(frozen=True)
class Row:
    """One stage at one point of an axis."""

    axis: str
    value: int
    parameters: int
    stage: str
    cpu_s: float
    peak_bytes: int
    bytes_written: int

    def cells(self) -> list[str]:
        """For the table."""
        return [
            f"{self.value:,}", f"{self.parameters / 1e6:.1f} M", self.stage, f"{self.cpu_s:.1f}",
            f"{self.peak_bytes / 1e9:.2f} GB", f"{self.bytes_written / 1e6:.1f} MB",
        ]  # fmt: skip

    def json(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self)


def rows(axis: str, recipe: str, targets: tuple[str, ...], work: Path, downloads: Path) -> Iterator[Row]:
    """The stages of every point of an axis."""
    for value in AXES[axis].values:
        home = work / str(value)
        for stage, parameters, cpu_s, peak, size in staged(
            AXES[axis].shape(value), AXES[axis].context_tokens(value), recipe, targets, home, downloads
        ):
            yield Row(axis, value, parameters, stage, cpu_s, peak, size)
        shutil.rmtree(home)


@dataclass
class Stages:
    """One model's stages, each in a process of its own as a build runs it.

    Attributes:
        parameters: how many the model has.
    """

    parameters: int
    reference: Any
    home: Path

    @classmethod
    def of(cls, shape: Shape, home: Path, downloads: Path) -> Stages:
        """Write the random model and load it."""
        from kobako.pipeline.fetch import fetch, parse
        from kobako.pipeline.reference.load import load

        parameters = write_checkpoint(shape, home / "model", downloads)
        (home / "reference").mkdir()
        return cls(parameters, load(fetch(parse(str(home / "model")), downloads), home / "reference"), home)

    def run(self, operation: str, arguments: Mapping[str, Any]) -> tuple[Any, float, int]:
        """What a stage gave, its CPU seconds, and its peak of resident bytes."""
        from kobako.pipeline.process import Limits, Workers

        workers = Workers(Limits(memory_bytes=1 << 40, threads=os.cpu_count() or 1))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        outcome = workers.run(operation, arguments, log=self.home / "log")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return outcome.value, used, outcome.peak_rss_bytes

    def quantize(self, recipe: str) -> tuple[Any, float, int]:
        """As `run`; the result goes into `home`/quantized."""
        from kobako.pipeline.codec import to_json
        from kobako.pipeline.contracts import RECIPES

        out = self.home / "quantized"
        out.mkdir()
        arguments = {"reference": to_json(self.reference), "recipe": to_json(RECIPES[recipe])}
        return self.run("quantize", {**arguments, "out": str(out), "calibration": ""})


def staged(  # noqa: PLR0913 - what a build is told
    shape: Shape, context_tokens: int, recipe: str, targets: tuple[str, ...], home: Path, downloads: Path,
    *, run: bool = False,
) -> Iterator[tuple[str, int, float, int, int]]:  # fmt: skip
    """(stage, parameters, CPU seconds, peak resident bytes, bytes of the model file) of quantizing and each export.

    With `run`, of each target's engine reading and writing a few tokens, too; Core ML's, interpreted here, is left out.
    """
    from kobako.pipeline.codec import to_json
    from kobako.pipeline.contracts import ExportOptions

    stages = Stages.of(shape, home, downloads)
    quantized, used, peak = stages.quantize(recipe)
    weight_bytes = (home / "quantized" / "weights.safetensors").stat().st_size
    yield "quantize", stages.parameters, used, peak, weight_bytes
    options = to_json(ExportOptions(context_tokens=context_tokens, prefill_tokens=PREFILL_TOKENS))
    for target in targets:
        out = home / target
        out.mkdir()
        arguments = {"target": target, "quantized": quantized, "options": options, "out": str(out)}
        exported, used, peak = stages.run("export", arguments)
        size = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
        yield target, stages.parameters, used, peak, size
        if run and target != "coreml":
            asked = {"target": target, "exported": exported, "weight_bytes": weight_bytes}
            _, used, peak = stages.run("measure", asked)
            yield f"{target}, running", stages.parameters, used, peak, size
        shutil.rmtree(out)
