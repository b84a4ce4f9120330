"""Where the benchmark keeps things: all of it under ``.cache/peers``, which git ignores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
HOME = REPOSITORY / ".cache" / "peers"
OWN_PYTHON = REPOSITORY / ".venv" / "bin" / "python"
INSIDE = Path(__file__).resolve().parent / "inside"
"""Programs that run inside one environment or another; they know nothing of this one."""

MODEL = "smollm2-135m-instruct"
CONTEXT_TOKENS = 1024
QUALITY_TOKENS = 512
PROMPT_TOKENS = 128
DECODE_TOKENS = 64
THREADS = 2


@dataclass(frozen=True)
class Workspace:
    """One benchmark's files. `layers` cuts the model: a dry run, whose figures mean nothing, in a folder of its own."""

    layers: int | None = None

    @property
    def root(self) -> Path:
        return HOME if self.layers is None else HOME / f"dry-{self.layers}"

    @property
    def checkpoint(self) -> Path:
        """The model as a Hugging Face directory, for the peers."""
        return self.root / "checkpoint"

    @property
    def reference(self) -> Path:
        """``ids.npy``, ``logits.npy`` of the original model, ``prompt.txt`` for the speed runs, ``model.gguf``."""
        return self.root / "reference"

    @property
    def downloads(self) -> Path:
        return HOME / "downloads"

    def quality(self, name: str) -> Path:
        """Where an artifact's logits lie."""
        return self.root / "logits" / f"{name}.npy"

    def artifacts(self, step: str) -> Path:
        return self.root / "artifacts" / step

    def log(self, step: str) -> Path:
        return self.root / "logs" / f"{step}.log"

    def result_path(self, step: str) -> Path:
        folder = HOME if step.startswith("environment-") else self.root
        return folder / "results" / f"{step}.json"

    def result(self, step: str) -> dict[str, Any] | None:
        """What a finished step found, or None."""
        path = self.result_path(step)
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def store(self, step: str, found: dict[str, Any]) -> None:
        """Write a step's result; it appears whole or not at all."""
        path = self.result_path(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)
