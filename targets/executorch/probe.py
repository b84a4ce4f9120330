"""For a failed proof: the same program with every decoder layer's hidden state among its outputs."""

from __future__ import annotations

from pathlib import Path

from kobako.pipeline.contracts import ExportOptions, Progress, Quantized

from .export import write_model
from .runtime import probe_states

__all__ = ["probe_export", "probe_states"]


def probe_export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Path:
    """Write ``probe.pte`` into `out`; `probe_states` runs it. Raises UnsupportedModel."""
    path = out / "probe.pte"
    write_model(quantized, options, path, progress, {}, probe=True)
    return path
