"""A list of models (TOML) → the jobs to build: independent of each other, so that machines can share them.

[defaults]                       # for every model that does not say otherwise
recipes = ["int8"]
targets = ["executorch", "coreml", "litert"]
context = 1024

[[model]]
model = "smollm2-135m-instruct"  # whatever `kobako build` takes
recipes = ["int8", "int4"]       # one job each
tasks = ["summarize"]
memory_gb = 4                    # of the largest process; for executors that share machines out
publish = "hf://me/smollm2-{recipe}"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contracts import DEFAULT_RECIPE, RECIPES
from .errors import UsageError

MAX_BYTES = 2**20
MAX_JOBS = 256  # what GitHub takes in a matrix
FIELDS: Mapping[str, type] = {
    "recipes": list,
    "targets": list,
    "tasks": list,
    "context": int,
    "publish": str,
    "memory_gb": int,
}
NEXT_STEP = "See docs/publishing.md."


@dataclass(frozen=True, kw_only=True)
class Job:
    """One package to build. Every field is a string or a number, so that CI can hand it on.

    Attributes:
        name: distinct in the matrix, and fit for an artifact's name.
        targets, tasks: separated by spaces; empty tasks = all the model can do.
        publish: an address, or empty.
        memory_bytes: what the largest process will need, for executors that share machines out; 0 = not declared.
    """

    name: str
    model: str
    recipe: str
    targets: str
    context: int
    tasks: str
    publish: str
    memory_bytes: int = 0


def read_matrix(path: Path) -> tuple[Job, ...]:
    """The jobs of a file, in its order. Raises UsageError for whatever is not as it should be; nothing is ignored."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is too large to be a list of models.", NEXT_STEP)
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", NEXT_STEP) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}.", NEXT_STEP) from error
    try:
        jobs = _jobs(data)
    except ValueError as error:
        raise UsageError(f"{path}: {error}.", NEXT_STEP) from error
    return jobs


def _jobs(data: Mapping[str, Any]) -> tuple[Job, ...]:
    _only(data, {"defaults", "model"}, "the file")
    defaults = _fields(data.get("defaults", {}), "defaults", set(FIELDS))
    models = data.get("model", [])
    if not isinstance(models, list) or not models:
        raise ValueError("it lists no [[model]]")
    jobs: dict[str, Job] = {}
    for number, entry in enumerate(models, 1):
        for job in _jobs_of(entry, defaults, f"model {number}"):
            if jobs.setdefault(job.name, job) is not job:
                raise ValueError(f"{job.name} is in it twice")
    if len(jobs) > MAX_JOBS:
        raise ValueError(f"{len(jobs)} jobs are more than a matrix holds, {MAX_JOBS}")
    return tuple(jobs.values())


def _jobs_of(entry: Any, defaults: dict[str, Any], where: str) -> list[Job]:
    from kobako import targets

    from .fetch import parse
    from .package import package_name

    values = defaults | _fields(entry, where, {*FIELDS, "model"})
    model = values.get("model")
    if not isinstance(model, str) or not model:
        raise ValueError(f"{where} has no model")
    if unknown := sorted(set(values.get("targets", [])) - set(targets.names())):
        raise ValueError(f"{where} has the unknown target {unknown[0]!r}")
    recipes = values.get("recipes", [DEFAULT_RECIPE])
    for recipe in recipes:
        if recipe not in RECIPES:
            raise ValueError(f"{where} has the unknown recipe {recipe!r}")
    if not 64 <= values.get("context", 1024) <= 131072:
        raise ValueError(f"{where}: context is not between 64 and 131072")
    return [
        Job(
            name=package_name(parse(model).name, recipe),
            model=model,
            recipe=recipe,
            targets=" ".join(values.get("targets", targets.names())),
            context=values.get("context", 1024),
            tasks=" ".join(values.get("tasks", [])),
            publish=_address(values.get("publish", ""), recipe, several=len(recipes) > 1, where=where),
            memory_bytes=values.get("memory_gb", 0) * 10**9,
        )
        for recipe in recipes
    ]


def _address(text: str, recipe: str, *, several: bool, where: str) -> str:
    from .registry.addresses import parse

    if not text:
        return ""
    if several and "{recipe}" not in text:
        raise ValueError(f"{where} would publish several recipes to one place: put {{recipe}} into publish")
    address = text.replace("{recipe}", recipe)
    parse(address)  # a wrong address should not be found out after hours of building
    return address


def _fields(entry: Any, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is not a table")
    _only(entry, known, where)
    for name, kind in FIELDS.items():
        value = entry.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ValueError(f"{where}: {name} is not a {'list' if kind is list else kind.__name__}")
        if isinstance(value, list) and (not value or not all(isinstance(item, str) for item in value)):
            raise ValueError(f"{where}: {name} is not a list of words")
    return dict(entry)


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    """A misspelt field would silently build something else."""
    if unknown := sorted(set(table) - known):
        raise ValueError(f"{where} has the unknown field {unknown[0]!r}")
