"""The steps that make artifacts: the peers' own commands, and ``kobako build`` from an empty cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from environments import COREML, LITERT, OPTIMUM
from measured import Measured, StepFailed, answer, measured
from workspace import (
    CONTEXT_TOKENS,
    INSIDE,
    MODEL,
    OWN_PYTHON,
    PROMPT_TOKENS,
    QUALITY_TOKENS,
    REPOSITORY,
    Workspace,
)


def emptied(directory: Path) -> Path:
    """The directory, existing and empty."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def prepare_model(workspace: Workspace) -> dict[str, Any]:
    """Fetch the model, write it as the peers read it, and let the original read the proof text."""
    workspace.downloads.mkdir(parents=True, exist_ok=True)
    program = INSIDE / "checkpoint.py"
    return answer(
        [OWN_PYTHON, program, MODEL, workspace.downloads, emptied(workspace.checkpoint), emptied(workspace.reference),
         str(QUALITY_TOKENS), str(PROMPT_TOKENS), str(workspace.layers or 0)],
        workspace.log("model"),
    )  # fmt: skip


def found(cost: Measured, command: list[str | Path]) -> dict[str, Any]:
    """A peer's result: what it cost, and the command for those who want to repeat it."""
    return {**cost.figures(), "command": [str(part) for part in command]}


def export_optimum(workspace: Workspace) -> dict[str, Any]:
    """8-bit dynamic activations, 4-bit weights in groups of 32, int8 embedding, custom attention and cache.

    Its context is set to kobako's: its attention reads used slots only, so that speed does not depend on it.
    """
    out = emptied(workspace.artifacts("optimum"))
    command: list[str | Path] = [
        OPTIMUM.tool("optimum-cli"), "export", "executorch", "--model", workspace.checkpoint,
        "--task", "text-generation", "--recipe", "xnnpack", "--use_custom_sdpa", "--use_custom_kv_cache",
        "--qlinear", "8da4w", "--qlinear_group_size", "32", "--qembedding", "8w",
        "--max_seq_len", str(CONTEXT_TOKENS), "--output_dir", out,
    ]  # fmt: skip
    return found(measured(command, workspace.log("optimum")), command)


def export_litert(workspace: Workspace) -> dict[str, Any]:
    """Everything by default: int8 weights, dynamic int8 activations, prefill of 128, a cache of 4096 slots."""
    out = emptied(workspace.artifacts("litert"))
    command: list[str | Path] = [
        LITERT.tool("litert-torch"), "export_hf", f"--model={workspace.checkpoint}", f"--output_dir={out}",
    ]  # fmt: skip
    return found(measured(command, workspace.log("litert")), command)


def export_litert_4bit(workspace: Workspace) -> dict[str, Any]:
    """The same with the exporter's 4-bit recipe: symmetric blocks of 32, head and embedding too."""
    out = emptied(workspace.artifacts("litert-4bit"))
    command: list[str | Path] = [
        LITERT.tool("litert-torch"), "export_hf", f"--model={workspace.checkpoint}", f"--output_dir={out}",
        "--quantization_recipe=dynamic_wi4b32_afp32",
    ]  # fmt: skip
    return found(measured(command, workspace.log("litert-4bit")), command)


def export_coreml(workspace: Workspace) -> dict[str, Any]:
    """The vendor's public recipe (``inside/coreml_convert.py``): float16, stateful, flexible query length."""
    out = emptied(workspace.artifacts("coreml"))
    command: list[str | Path] = [
        COREML.python, INSIDE / "coreml_convert.py", workspace.checkpoint, out / "model.mlpackage", str(CONTEXT_TOKENS),
    ]  # fmt: skip
    return found(measured(command, workspace.log("coreml")), command)


def build_kobako(workspace: Workspace, recipe: str) -> dict[str, Any]:
    """``kobako build`` of three targets with an empty cache, but for the downloaded weights; then the same again."""
    step = f"kobako-{recipe}"
    work = emptied(workspace.artifacts(step))
    cache = work / "cache"
    shutil.copytree(workspace.downloads, cache / "downloads")
    model = MODEL if workspace.layers is None else str(workspace.checkpoint)
    command: list[str | Path] = [
        REPOSITORY / ".venv" / "bin" / "kobako", "build", model, "--recipe", recipe, "--context", str(CONTEXT_TOKENS),
        "--out", work / "package", "--allow-failing", "--json", "--quiet",
    ]  # fmt: skip
    environment = {"KOBAKO_CACHE": str(cache)}
    first = measured(command, workspace.log(step), environment)
    second = measured(command, workspace.log(f"{step}-again"), environment)
    told, again = json.loads(first.output), json.loads(second.output)
    if not again["unchanged"]:
        redone = [stage["stage"] for stage in again["report"]["stages"] if not stage["cached"]]
        raise StepFailed(
            f"the second build of {recipe} was no repetition: it redid {', '.join(redone) or 'the package'}"
        )
    return {
        **found(first, command),
        "second_wall_s": second.wall_s,
        "proof": {name: bool(part["report"]["passed"]) for name, part in told["report"]["targets"].items()},
        "target_seconds": {name: part["build_seconds"] for name, part in told["report"]["targets"].items()},
    }
