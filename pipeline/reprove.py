"""What is done with a finished package on this machine: prove it again, run it, time it, look inside.

Each in a process of its own.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kobako import targets

from .cache import default_root
from .codec import from_json, read_json, to_json
from .contracts import Exported, Measurement, Recipe, Report, Task
from .encoder.engine import Reading
from .errors import BadArtifact, NotFound, UsageError
from .manifest import check_files, exported_of, read_manifest
from .process import Limits, Workers
from .protocols import Generation
from .run import Observer
from .system import Machine
from .tasks import build_prompt, fields_for
from .tokens import ShippedTokenizer

QUESTION_AND_PASSAGE = 2


def _workers() -> Workers:
    machine = Machine.here()
    return Workers(Limits(memory_bytes=int(machine.available_bytes * 0.9), threads=machine.cores))


def _present(package: Path, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest of what is here: a package pulled for one target lacks the folders of the others."""
    here = {name: entry for name, entry in manifest["targets"].items() if (package / name).is_dir()}
    return {**manifest, "targets": here or manifest["targets"]}


def _log(operation: str) -> Path:
    name = f"{operation}.log"
    try:
        logs = default_root() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        (logs / name).open("ab").close()
    except OSError:
        return Path(tempfile.gettempdir()) / f"kobako-{os.getpid()}-{name}"
    return logs / name


def reprove(package: Path, names: tuple[str, ...], observer: Observer) -> Mapping[str, Report]:
    """Reports of the package's targets (or of `names`).

    Raises IntegrityError, BadArtifact, MissingDependency, NotFound.
    """
    manifest = _present(package, read_manifest(package))
    check_files(package, manifest)
    recipe = from_json(manifest["recipe"], Recipe)
    reports = {}
    for name in names or tuple(manifest["targets"]):
        exported = exported_of(package, manifest, name)
        targets.require(targets.get(name))
        label = f"{name} proof"
        observer.started(label)
        began = time.monotonic()
        arguments = {
            "target": name,
            "exported": to_json(exported),
            "recipe": to_json(recipe),
            "golden": str(package.absolute() / "golden"),
        }
        outcome = _workers().run(
            "validate",
            arguments,
            log=_log("validate"),
            progress=partial(observer.progress, label),
        )
        reports[name] = from_json(outcome.value, Report)
        observer.finished(label, time.monotonic() - began, cached=False)
    return reports


def default_target(manifest: Mapping[str, Any]) -> str:
    """The first target of a package that can run here. Raises MissingDependency when none can."""
    for name in ("litert", "executorch", *manifest["targets"]):
        if name in manifest["targets"] and not targets.missing_modules(targets.get(name)):
            return str(name)
    name = str(next(iter(manifest["targets"])))
    targets.require(targets.get(name))
    return name


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a package shall do: `task` None = its first, `max_new_tokens` None = the task's.

    `to` and `source`: codes of the answer's language, and of the text's where it is not the task's usual one.
    """

    text: str
    task: str | None = None
    to: str | None = None
    source: str | None = None
    max_new_tokens: int | None = None


def run_package(
    package: Path,
    target: str | None,
    wanted: Wanted,
    on_text: Callable[[str], None],
) -> Generation:
    """Run one task of a package on a text; pieces of the answer go to `on_text` as they come.

    Raises IntegrityError when a file was changed, NotFound for a target or task the package does not have, UsageError
    for a language it does not know.
    """
    name, exported, task = _ready(package, target, wanted.task)
    fields = fields_for(task, wanted.text, wanted.to, wanted.source)
    prompt = build_prompt(task, ShippedTokenizer(package / "tokenizer"), fields)
    arguments = {
        "target": name,
        "exported": to_json(exported),
        "prompt": prompt,
        "max_new_tokens": wanted.max_new_tokens or task.max_new_tokens,
        "stop": list(task.stop),
    }
    outcome = _workers().run("generate", arguments, log=_log("run"), progress=lambda _, piece: on_text(piece))
    return from_json(outcome.value, Generation)


def _ready(package: Path, target: str | None, wanted: str | None) -> tuple[str, Exported, Task]:
    """Target, artifact and task of a run, after a check of the artifact's files. Raises as `run_package` does."""
    manifest = read_manifest(package)
    name = target or default_target(_present(package, manifest))
    exported = exported_of(package, manifest, name)
    check_files(package, manifest, [name])
    tasks = {task["name"]: from_json(task, Task) for task in manifest["tasks"]}
    chosen = wanted or next(iter(tasks))
    if chosen not in tasks:
        raise NotFound(f"{package} has no task {chosen!r}.", f"It has: {', '.join(tasks)}.")
    return name, exported, tasks[chosen]


def is_encoder(package: Path) -> bool:
    """Whether a package answers with vectors or labels instead of text. Raises BadArtifact."""
    return bool(read_manifest(package).get("kind") == "encoder")


def read_texts(package: Path, target: str | None, task: str | None, texts: Sequence[str]) -> tuple[Reading, ...]:
    """What an encoder's package answers to each text; to a question and a passage together, where it answers questions.

    Raises IntegrityError, NotFound, and UsageError for a text longer than the package was built for.
    """
    name, exported, chosen = _ready(package, target, task)
    if chosen.output == "span" and len(texts) != QUESTION_AND_PASSAGE:
        raise UsageError("this package answers a question on a passage.", "Give two texts, the question first.")
    prompts = [
        build_prompt(chosen, ShippedTokenizer(package / "tokenizer"), fields_for(chosen, text, None)) for text in texts
    ]
    arguments = {
        "target": name,
        "exported": to_json(exported),
        "head": read_manifest(package)["head"],
        "texts": [prompts] if chosen.output == "span" else prompts,
    }
    outcome = _workers().run("read", arguments, log=_log("run"))
    return tuple(from_json(one, Reading) for one in outcome.value)


def bench_package(package: Path, names: tuple[str, ...], observer: Observer) -> Mapping[str, Measurement]:
    """Time the package's targets (or `names`) in their engines, one after another."""
    manifest = _present(package, read_manifest(package))
    try:
        weight_bytes = sum(read_json(package / "report.json")["weights_bytes_by_part"].values())
    except (OSError, ValueError, KeyError) as error:
        raise BadArtifact(f"{package}/report.json cannot be read: {error}.", "Pull the package again.") from error
    measured = {}
    for name in names or tuple(manifest["targets"]):
        exported = exported_of(package, manifest, name)
        targets.require(targets.get(name))
        label = f"{name} speed"
        observer.started(label)
        began = time.monotonic()
        arguments = {"target": name, "exported": to_json(exported), "weight_bytes": weight_bytes}
        outcome = _workers().run(
            "measure",
            arguments,
            log=_log("bench"),
            progress=partial(observer.progress, label),
        )
        measured[name] = from_json(outcome.value, Measurement)
        observer.finished(label, time.monotonic() - began, cached=False)
    return measured


def inspect_artifact(name: str, path: Path) -> Mapping[str, Any]:
    """What is inside one artifact, read in a process of its own: a hostile file cannot take kobako down."""
    targets.require(targets.get(name))
    arguments = {"target": name, "path": str(path.absolute())}
    found: Mapping[str, Any] = _workers().run("inspect", arguments, log=_log("inspect")).value
    return found
