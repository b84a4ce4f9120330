"""What is compared: the file each tool made, where it runs, and how many bytes it reads per decoded token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from environments import COREML, LITERT, LLAMA_CPP, OPTIMUM, Environment
from workspace import Workspace

Runtime = Literal["pte", "litert", "coreml", "gguf"]
RECIPES = ("int8", "int4", "int4-small", "int4-nearest")
KOBAKO_FILES: dict[str, tuple[Runtime, str]] = {
    "executorch": ("pte", "model.pte"),
    "litert": ("litert", "model.litertlm"),
    "coreml": ("coreml", "model.mlpackage"),
}


@dataclass(frozen=True)
class Artifact:
    """One file (or ``.mlpackage``) that a step makes.

    Attributes:
        step: the step that makes it; None when it exists already.
        linear_bits, head_bits: per weight, scales included; what one decoded token reads from memory.
        environment: the peer it belongs to, or None for kobako's own.
    """

    name: str
    step: str | None
    runtime: Runtime
    file: str
    linear_bits: float
    head_bits: float
    environment: Environment | None = None

    def path(self, workspace: Workspace) -> Path:
        return workspace.artifacts(self.step) / self.file if self.step else workspace.reference / self.file

    def size_bytes(self, workspace: Workspace) -> int:
        path = self.path(workspace)
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)

    def bytes_per_token(self, linear_parameters: int, embedding_parameters: int) -> float:
        """Weights read once per decoded token: every linear layer and the head. Of the embedding only one row is."""
        return (linear_parameters * self.linear_bits + embedding_parameters * self.head_bits) / 8


def kobako_artifact(recipe: str, target: str) -> Artifact:
    """One target's file in a package.

    In 4 bits there is a scale of 16 bits for 32 weights and, where blocks are asymmetric, a shift of 8 bits; in 8 bits
    a scale per row, which is not counted.
    """
    runtime, file = KOBAKO_FILES[target]
    linear = {"int8": 8.0, "int4-nearest": 4.5}.get(recipe, 4.75)
    return Artifact(
        name=f"kobako-{recipe}-{target}", step=f"kobako-{recipe}", runtime=runtime, file=f"package/{target}/{file}",
        linear_bits=linear, head_bits=linear if recipe == "int4-small" else 8.0,
    )  # fmt: skip


PEERS = (
    Artifact("optimum", "optimum", "pte", "model.pte", 4.5, 4.5, OPTIMUM),  # its untied head is 4-bit too
    Artifact("litert", "litert", "litert", "model.litertlm", 8.0, 8.0, LITERT),
    Artifact("litert-4bit", "litert-4bit", "litert", "model.litertlm", 4.5, 4.5, LITERT),
    Artifact("coreml", "coreml", "coreml", "model.mlpackage", 16.0, 16.0, COREML),
)
LLAMA = Artifact("llama-cpp", None, "gguf", "model.gguf", 5.0, 8.5, LLAMA_CPP)  # Q4_1 with a Q8_0 embedding
KOBAKO = tuple(kobako_artifact(recipe, target) for recipe in RECIPES for target in KOBAKO_FILES)


def present(workspace: Workspace, *, llama_cpp: bool) -> list[Artifact]:
    """The artifacts whose step has finished."""
    finished = [one for one in (*PEERS, *KOBAKO) if one.step and workspace.result(one.step)]
    finished = [one for one in finished if one.path(workspace).exists()]
    return [*finished, *([LLAMA] if llama_cpp and LLAMA.path(workspace).exists() else [])]
