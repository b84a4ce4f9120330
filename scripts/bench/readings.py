"""The steps that read artifacts: divergence from the original model, speed in the engine, bandwidth of the memory."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifacts import Artifact
from environments import COREML, LITERT, LLAMA_CPP
from measured import StepFailed, answer, measured, parsed
from workspace import (
    CONTEXT_TOKENS,
    DECODE_TOKENS,
    INSIDE,
    OWN_PYTHON,
    PROMPT_TOKENS,
    QUALITY_TOKENS,
    THREADS,
    Workspace,
)

ROUNDS = 7
RUNS = 3


def quality(workspace: Workspace, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """KL and top-1 of artifacts against the float32 original on the proof text, each in its own runtime."""
    result: dict[str, Any] = {}
    for artifact in artifacts:
        if not artifact.path(workspace).exists():
            raise StepFailed(f"there is no {artifact.path(workspace)}")
        log = workspace.log(f"quality-{artifact.name}")
        out = workspace.quality(artifact.name)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.unlink(missing_ok=True)
        said = answer([*_reader(workspace, artifact), workspace.reference / "ids.npy", out, *_threads(artifact)], log)
        result[artifact.name] = {"kl_nats": None, "top1": None} | said
        if out.exists():
            compare = [OWN_PYTHON, INSIDE / "compare.py", workspace.reference / "logits.npy", out]
            result[artifact.name] |= answer(compare, log)
    return result


def _threads(artifact: Artifact) -> list[str]:
    return [str(THREADS)] if artifact.runtime == "litert" else []


def _reader(workspace: Workspace, artifact: Artifact) -> list[str | Path]:
    """The command that writes an artifact's logits, up to where they go."""
    path = artifact.path(workspace)
    python = artifact.environment.python if artifact.environment else OWN_PYTHON
    if artifact.runtime == "pte":
        return [python, INSIDE / "run_pte.py", "logits", path]
    if artifact.runtime == "litert":
        return [python, INSIDE / "run_litert.py", "logits", _tflite(workspace, artifact)]
    if artifact.runtime == "gguf":
        return [python, INSIDE / "run_llama.py", "logits", path]
    if artifact.environment is None:
        return [OWN_PYTHON, INSIDE / "run_coreml.py", "package", path.parents[1]]
    return [OWN_PYTHON, INSIDE / "run_coreml.py", "logits", _fixed(workspace)]


def _tflite(workspace: Workspace, artifact: Artifact) -> Path:
    """The model inside a .litertlm, taken out by the engine's own tool."""
    kept = workspace.quality(artifact.name).with_suffix(".tflite")
    with tempfile.TemporaryDirectory(dir=workspace.root) as temporary:
        out = Path(temporary) / "model"
        unpack: list[str | Path] = [LITERT.tool("litert-lm"), "unpack", artifact.path(workspace), "--output-dir", out]
        measured(unpack, workspace.log(f"unpack-{artifact.name}"))
        found = sorted(out.glob("*.tflite"), key=lambda file: file.stat().st_size)
        if not found:
            raise StepFailed(f"{artifact.path(workspace)} holds no .tflite")
        found[-1].replace(kept)
    return kept


def _fixed(workspace: Workspace) -> Path:
    """The peer's Core ML conversion once more, at one query length: see ``inside/coreml_convert.py``."""
    out = workspace.quality("coreml").with_suffix(".mlpackage")
    program = INSIDE / "coreml_convert.py"
    command: list[str | Path] = [
        COREML.python,
        program,
        workspace.checkpoint,
        out,
        str(CONTEXT_TOKENS),
        str(QUALITY_TOKENS),
    ]
    measured(command, workspace.log("coreml-fixed"))
    return out


def speed(workspace: Workspace, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Prefill and decode of all artifacts, taking turns so that a slow minute of the machine hits them alike.

    Medians over ROUNDS processes of each; inside a process, medians over RUNS after one that warms up.
    """
    rounds: dict[str, list[dict[str, Any]]] = {one.name: [] for one in artifacts}
    bandwidths, wall_s, others_cpu_s = [], 0.0, 0.0
    for _ in range(ROUNDS):
        bandwidths.append(bandwidth(workspace))
        for artifact in artifacts:
            command = _racer(workspace, artifact)
            log = workspace.log(f"speed-{artifact.name}")
            run = measured(command, log)
            wall_s, others_cpu_s = wall_s + run.wall_s, others_cpu_s + run.others_cpu_s
            rounds[artifact.name].append(parsed(run.output, log))
    return {
        "threads": THREADS,
        "bandwidth_bytes_per_s": max(bandwidths),
        "wall_s": wall_s,
        "others_cpu_s": others_cpu_s,
        "artifacts": {name: _median(seen) for name, seen in rounds.items()},
    }


def has_engine(artifact: Artifact) -> bool:
    """Whether this machine can run the artifact at a speed that means something."""
    return artifact.runtime != "coreml"


def bandwidth(workspace: Workspace) -> float:
    """Bytes per second that THREADS threads read from memory, by kobako's own measure."""
    code = (
        "import json; from kobako.pipeline.measure import memory_bandwidth_bytes_per_s as measure; "
        f"print(json.dumps({{'bytes_per_s': measure({THREADS})}}))"
    )
    return float(answer([OWN_PYTHON, "-c", code], workspace.log("bandwidth"))["bytes_per_s"])


def _median(seen: Sequence[dict[str, Any]]) -> dict[str, Any]:
    speeds = ("prefill_tokens_per_s", "decode_tokens_per_s")
    merged = dict(seen[-1])
    for name in speeds:
        values = [one[name] for one in seen]
        merged |= {name: statistics.median(values), f"{name}_all": [round(value, 1) for value in values]}
    return merged


def _racer(workspace: Workspace, artifact: Artifact) -> list[str | Path]:
    """The command that times an artifact. One engine for kobako and peer: the one in kobako's environment."""
    path, counts = artifact.path(workspace), [str(DECODE_TOKENS), str(THREADS), str(RUNS)]
    prompt = workspace.reference / "prompt.txt"
    if artifact.runtime == "pte":
        tokenizer = workspace.checkpoint / "tokenizer.json"
        return [OWN_PYTHON, INSIDE / "run_pte.py", "speed", path, tokenizer, prompt, *counts]
    if artifact.runtime == "litert":
        return [OWN_PYTHON, INSIDE / "run_litert.py", "speed", path, prompt, str(PROMPT_TOKENS), *counts]
    ids = workspace.reference / "ids.npy"
    return [LLAMA_CPP.python, INSIDE / "run_llama.py", "speed", path, ids, str(PROMPT_TOKENS), *counts]
