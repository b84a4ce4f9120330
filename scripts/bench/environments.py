"""The peers' environments: one each, because what they pin cannot be installed together."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measured import measured
from workspace import HOME, Workspace

TORCH = "torch==2.13.0"
"""Installed first: whichever package asks for torch later must find this one (on Linux the default file is CUDA's,
several gigabytes; name an index of CPU files in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS to avoid that)."""


@dataclass(frozen=True)
class Environment:
    """A peer's packages; `note` says what was chosen and why."""

    name: str
    packages: tuple[str, ...]
    note: str
    torch: bool = True
    build: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the installation, for what is compiled."""

    @property
    def directory(self) -> Path:
        return HOME / self.name / "venv"

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    def tool(self, name: str) -> Path:
        """A console script of this environment."""
        return self.directory / "bin" / name


OPTIMUM = Environment(
    "optimum",
    ("optimum-executorch==1.1.0", "executorch==1.5.1"),
    "pins transformers 5.0.0rc1; executorch is only bounded below, so it gets the version kobako uses: one engine",
)
LITERT = Environment(
    "litert",
    ("litert-torch==0.9.4", "litert-lm==0.18.1"),
    "0.10.0's export_hf imports tensorflow without declaring it; 0.9.4 is the last that runs as installed",
)
COREML = Environment(
    "coreml", ("coremltools==9.0", "numpy<2.4", "transformers==5.23.0"), "numpy 2.4 breaks coremltools 9.0"
)
NO_AMX = "-DCMAKE_C_FLAGS='-mno-amx-int8 -mno-amx-tile' -DCMAKE_CXX_FLAGS='-mno-amx-int8 -mno-amx-tile'"
LLAMA_CPP = Environment(
    "llama-cpp",
    ("llama-cpp-python==0.3.36",),
    "compiles llama.cpp for this processor, without AMX on x86-64: with it, this version crashed at the first token",
    torch=False,
    build={"CMAKE_ARGS": NO_AMX} if platform.machine() == "x86_64" else {},
)
ENVIRONMENTS = (OPTIMUM, LITERT, COREML, LLAMA_CPP)


def set_up(environment: Environment, workspace: Workspace) -> dict[str, Any]:
    """Make the environment from nothing; returns what pip chose."""
    log = workspace.log(f"environment-{environment.name}")
    shutil.rmtree(environment.directory, ignore_errors=True)
    python = getattr(sys, "_base_executable", sys.executable)
    cost = measured([python, "-m", "venv", environment.directory], log)
    seconds = cost.wall_s
    pip: list[str | Path] = [environment.python, "-m", "pip", "--disable-pip-version-check"]
    for packages in ((TORCH,), environment.packages) if environment.torch else (environment.packages,):
        fresh = ["--no-cache-dir"] if environment.build else []  # pip keeps what it built, whatever it was told then
        seconds += measured([*pip, "install", "--quiet", *fresh, *packages], log, environment.build).wall_s
    listed = json.loads(measured([*pip, "list", "--format", "json"], log).output)
    return {
        "packages": list(environment.packages),
        "note": environment.note,
        "seconds": seconds,
        "versions": {entry["name"]: entry["version"] for entry in listed},
    }
