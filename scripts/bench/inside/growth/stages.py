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


def staged(
    shape: Shape, context_tokens: int, recipe: str, targets: tuple[str, ...], home: Path, downloads: Path
) -> Iterator[tuple[str, int, float, int, int]]:
    """(stage, parameters, CPU seconds, peak resident bytes, bytes of the model file) of quantizing and each export."""
    from kobako.pipeline.codec import to_json
    from kobako.pipeline.contracts import RECIPES, ExportOptions
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.process import Limits, Workers
    from kobako.pipeline.reference.load import load

    parameters = write_checkpoint(shape, home / "model", downloads)
    reference_home, quantized = home / "reference", home / "quantized"
    reference_home.mkdir()
    quantized.mkdir()
    reference = load(fetch(parse(str(home / "model")), downloads), reference_home)
    workers = Workers(Limits(memory_bytes=1 << 40, threads=os.cpu_count() or 1))

    def ran(operation: str, arguments: Mapping[str, Any]) -> tuple[Any, float, int]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        outcome = workers.run(operation, arguments, log=home / "log")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return outcome.value, used, outcome.peak_rss_bytes

    value, used, peak = ran(
        "quantize",
        {"reference": to_json(reference), "recipe": to_json(RECIPES[recipe]), "out": str(quantized), "calibration": ""},
    )
    yield "quantize", parameters, used, peak, (quantized / "weights.safetensors").stat().st_size
    options = to_json(ExportOptions(context_tokens=context_tokens, prefill_tokens=PREFILL_TOKENS))
    for target in targets:
        out = home / target
        out.mkdir()
        _, used, peak = ran("export", {"target": target, "quantized": value, "options": options, "out": str(out)})
        size = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
        yield target, parameters, used, peak, size
        shutil.rmtree(out)
