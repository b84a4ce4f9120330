"""All steps in order, what each needs, and how a run decides what is left to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import artifacts
import environments
import exports
import readings
from measured import StepFailed
from workspace import Workspace

Work = Callable[[Workspace], dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One resumable piece of the benchmark.

    Attributes:
        needs: steps whose results must exist; a newer result of one makes this step due again.
        uses: the same, but the step goes on without them.
        kept: redone by ``--fresh`` only when named by ``--only``.
    """

    name: str
    about: str
    work: Work
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    kept: bool = False

    def missing(self, workspace: Workspace) -> list[str]:
        """Steps that must be run before."""
        return [name for name in self.needs if workspace.result(name) is None]

    def done(self, workspace: Workspace) -> bool:
        """Whether there is a result, newer than all it depends on."""
        path = workspace.result_path(self.name)
        if not path.is_file():
            return False
        before = [workspace.result_path(name) for name in (*self.needs, *self.uses)]
        return all(not other.is_file() or other.stat().st_mtime <= path.stat().st_mtime for other in before)


def all_steps(*, llama_cpp: bool) -> list[Step]:
    """Environments, model, what the tools make, what is read from it; llama.cpp only when asked for."""
    peers = [*artifacts.PEERS, *([artifacts.LLAMA] if llama_cpp else [])]
    made = ["optimum", "litert", "litert-4bit", "coreml", *(f"kobako-{recipe}" for recipe in artifacts.RECIPES)]
    wanted = [one for one in environments.ENVIRONMENTS if llama_cpp or one is not environments.LLAMA_CPP]
    steps = [
        Step(f"environment-{one.name}", f"install {', '.join(one.packages)}",
             partial(environments.set_up, one), kept=True)
        for one in wanted
    ]  # fmt: skip
    steps.append(Step("model", "fetch the model, write it for the peers, ask the original", exports.prepare_model))
    exporters = {
        "optimum": exports.export_optimum, "litert": exports.export_litert,
        "litert-4bit": exports.export_litert_4bit, "coreml": exports.export_coreml,
    }  # fmt: skip
    for name, export in exporters.items():
        environment = f"environment-{name.removesuffix('-4bit')}"
        steps.append(Step(name, f"export with {name}", export, needs=(environment, "model")))
    for recipe in artifacts.RECIPES:
        build = partial(exports.build_kobako, recipe=recipe)
        steps.append(Step(f"kobako-{recipe}", f"kobako build --recipe {recipe}, twice", build, needs=("model",)))
    for peer in peers:
        assert peer.environment is not None
        needs = ("model", f"environment-{peer.environment.name}", *([peer.step] if peer.step else []))
        work = partial(readings.quality, artifacts=[peer])
        steps.append(Step(f"quality-{peer.name}", f"KL and top-1 of {peer.name}", work, needs=needs))
    for recipe in artifacts.RECIPES:
        own = [one for one in artifacts.KOBAKO if one.step == f"kobako-{recipe}"]
        needs = ("model", f"kobako-{recipe}", "environment-litert")
        work = partial(readings.quality, artifacts=own)
        steps.append(Step(f"quality-kobako-{recipe}", f"KL and top-1 of the {recipe} artifacts", work, needs=needs))
    race = partial(race_all, llama_cpp=llama_cpp)
    steps.append(Step("speed", "prefill and decode of all, in turns", race, needs=("model",), uses=tuple(made)))
    return steps


def race_all(workspace: Workspace, *, llama_cpp: bool) -> dict[str, Any]:
    """Time every artifact that is there and has an engine on this machine."""
    runners = [one for one in artifacts.present(workspace, llama_cpp=llama_cpp) if readings.has_engine(one)]
    if not runners:
        raise StepFailed("nothing has been made yet that could be timed")
    return readings.speed(workspace, runners)
