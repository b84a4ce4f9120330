"""The order of the stages, and nothing else: fetch, load, quantize and expect, then export and validate per target.

Each heavy stage runs in a process of its own (`process`); its result lies in the cache under the digest of everything
it depends on (`cache`, `stagecode`). Targets run side by side when the memory allows it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kobako import targets

from .cache import Cache, Entry, stage_key
from .codec import from_json, to_json
from .contracts import Expectations, Exported, Measurement, Quantized, Report, Task
from .errors import KobakoError, UnsupportedRecipe
from .estimate import jobs_that_fit
from .expected import AskOriginal, expected, original_beside
from .fetch import adapted_name, parse, parse_adapter
from .heads import find_head
from .kvcache import check_kv_cache
from .licences import check_licence
from .mixture import Goal
from .package import Contents, Proven, check_destination, package, package_name
from .prepare import Prepared, check_target, fetch_source, load, prepare
from .process import Limits, Workers
from .reference.slices import parse_slice, sliced_name
from .run import Observer, Request, Run
from .seq2seq.tasks import own_tasks
from .stagecode import (
    code_of,
    export_inputs,
    measure_inputs,
    validate_inputs,
    vendor_versions,
)
from .system import Machine
from .tasks import tasks_for
from .tokens import ShippedTokenizer
from .weights import stored_bytes_by_part


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a build made.

    Attributes:
        unchanged: the package stood there already, nothing was written.
        licence_concerns: what the user should know about the model's licence.
    """

    package: Path
    reports: Mapping[str, Report]
    measurements: Mapping[str, Measurement]
    failures: Mapping[str, KobakoError]
    seconds: float
    peak_rss_bytes: int
    unchanged: bool
    licence_concerns: tuple[str, ...] = ()


def build(request: Request, cache: Cache, observer: Observer) -> Result:
    """Build, prove and package a model.

    Raises any KobakoError; ProofFailed or TargetCrashed only after every other target has had its turn. What was
    finished stays in the cache.
    """
    started = time.monotonic()
    machine = Machine.here()
    for name in request.targets:
        check_target(name, request.recipe)
    check_kv_cache(request.targets, request.options.kv_cache)
    cache.prepare()
    limit = request.memory_limit_bytes or int(machine.available_bytes * 0.9)
    jobs = min(request.jobs or machine.cores, machine.cores, len(request.targets) + 1)  # they, and what is expected
    workers = Workers(Limits(memory_bytes=limit, threads=machine.cores // jobs))
    run = Run(request, cache, observer, workers)
    try:
        return _build(run, jobs, limit, started)
    finally:
        workers.stop()


def _build(run: Run, jobs: int, limit: int, started: float) -> Result:
    request = run.request
    ref = parse(request.model)
    adapter = parse_adapter(request.adapter) if request.adapter else None
    recipe_name = request.recipe.name if request.goal is None else request.goal.recipe_name()
    taken = parse_slice(request.slice) if request.slice else None
    name = package_name(sliced_name(adapted_name(ref.name, adapter), taken), recipe_name, request.options.kv_cache)
    out = request.out or Path("dist") / name
    check_destination(out, name)
    source = fetch_source(run, ref)
    concerns = check_licence(source, request.licence_policy)
    loaded = load(run, source, limit)
    fitting = jobs_that_fit(loaded.need, ("expect", *request.targets), jobs, limit)
    with original_beside(run, loaded, jobs, limit) as original:
        prepared = prepare(run, loaded)
        request = run.request  # its recipe may have been decided by measurement
        tasks = _tasks(request, prepared.quantized)
        run.threads = Machine.here().cores // fitting
        expectations, parts, failures = _make_targets(run, prepared, original, fitting)
    peak = max([int(stage["peak_rss_bytes"]) for stage in run.stages] + [0])
    if failures and not (request.allow_failing and parts):
        raise next(iter(failures.values()))
    inputs = {
        "exports": [part.export_key for part in parts],
        "parts": [to_json(part.report) for part in parts],
        "measurements": [to_json(part.measurement) for part in parts if part.measurement],
        "tasks": to_json(tasks),
        "quantized": prepared.quantized_key,
        "options": to_json(request.options),
        "failures": {name: type(error).__name__ for name, error in failures.items()},
        "code": code_of("package"),
    }
    contents = Contents(
        build_id=stage_key("package", inputs),
        source=source,
        quantized=prepared.quantized,
        expectations=expectations,
        options=request.options,
        tasks=tasks,
        parts=tuple(parts),
        stages=tuple(run.stages),
        failures={name: str(error) for name, error in failures.items()},
        curve=prepared.curve,
    )
    standing = check_destination(out, name)
    unchanged = standing is not None and standing["build_id"] == contents.build_id and _sizes_hold(out, standing)
    if not unchanged:
        run.observer.started("package")
        began = time.monotonic()
        package(contents, out, allow_failing=request.allow_failing)
        run.observer.finished("package", time.monotonic() - began, cached=False)
    return Result(
        package=out,
        reports={part.exported.target: part.report for part in parts},
        measurements={part.exported.target: part.measurement for part in parts if part.measurement},
        failures=failures,
        seconds=time.monotonic() - started,
        peak_rss_bytes=peak,
        unchanged=unchanged,
        licence_concerns=concerns,
    )


def _tasks(request: Request, quantized: Quantized) -> tuple[Task, ...]:
    tokenizer = ShippedTokenizer(quantized.tokenizer_dir)
    return tasks_for(
        request.tasks, tokenizer, find_head(quantized.directory), own_tasks(quantized.model_type, tokenizer)
    )


def _sizes_hold(out: Path, manifest: Mapping[str, Any]) -> bool:
    from .manifest import all_files

    return all(
        (out / entry["path"]).is_file() and (out / entry["path"]).stat().st_size == entry["size_bytes"]
        for entry in all_files(manifest)
    )


def _make_targets(
    run: Run, prepared: Prepared, original: AskOriginal, jobs: int
) -> tuple[Expectations, list[Proven], dict[str, KobakoError]]:
    """Export every target while the reference answers, then prove them, `jobs` side by side; then time them in turn."""
    request = run.request
    with ThreadPoolExecutor(jobs) as pool:
        try:
            # in this order in the queue: a proof waits for what was begun before it, and never holds the last thread
            answers = pool.submit(expected, run, prepared, original)
            names = _costliest_first(request)
            exports = {name: pool.submit(_export, run, prepared, name) for name in names}
            proofs = {name: pool.submit(_prove, run, name, exports[name], answers) for name in names}
            answers.result()
            finished = {name: _outcome(future) for name, future in proofs.items()}
        except BaseException:
            run.workers.stop()
            raise
    failures = {name: value for name, value in finished.items() if isinstance(value, KobakoError)}
    expectations = answers.result()[0]
    weight_bytes = sum(stored_bytes_by_part(prepared.quantized.directory).values())
    parts = [value for value in (finished[name] for name in request.targets) if isinstance(value, _Built)]
    return expectations, [_measured(run, part, weight_bytes) for part in parts], failures


def _costliest_first(request: Request) -> list[str]:
    return sorted(request.targets, key=lambda name: -targets.get(name).relative_cost)


@dataclass(frozen=True)
class _Built:
    exported: Exported
    export_key: str
    report: Report
    seconds: float
    peak_rss_bytes: int


def _outcome(future: Future[_Built]) -> _Built | KobakoError:
    try:
        return future.result()
    except KobakoError as error:
        return error


def _export(run: Run, prepared: Prepared, name: str) -> Entry:
    options = to_json(run.request.options)
    entry = run.stage(
        "export",
        f"{name} export",
        export_inputs(prepared.quantized_key, run.request.options, name),
        lambda out: {"target": name, "quantized": to_json(prepared.quantized), "options": options, "out": str(out)},
    )
    check_size(from_json(entry.value, Exported), run.request.goal)
    return entry


def _prove(run: Run, name: str, export: Future[Entry], answers: Future[tuple[Expectations, str]]) -> _Built:
    exporting = export.result()
    exported = from_json(exporting.value, Exported)
    expectations, expect_key = answers.result()
    proving = run.stage(
        "validate",
        f"{name} proof",
        validate_inputs(exporting.key, expect_key, name),
        lambda _: {
            "target": name,
            "exported": to_json(exported),
            "recipe": to_json(run.request.recipe),
            "expectations": to_json(expectations),
            "golden": None,
        },
    )
    report = from_json(proving.value, Report)
    peak = max(exporting.peak_rss_bytes, proving.peak_rss_bytes)
    return _Built(exported, exporting.key, report, exporting.seconds + proving.seconds, peak)


def check_size(exported: Exported, goal: Goal | None) -> None:
    """Raise UnsupportedRecipe when the size that was asked for, which was estimated till now, is not kept."""
    sizes: dict[str, int] = {}
    for name in exported.files:
        whole = name.partition("/")[0]  # a .mlpackage is a directory
        sizes[whole] = sizes.get(whole, 0) + (exported.directory / name).stat().st_size
    largest = max(sizes, key=lambda name: sizes[name])
    if goal is not None and goal.size_bytes is not None and sizes[largest] > goal.size_bytes:
        raise UnsupportedRecipe(
            f"{exported.target}'s {largest} takes {sizes[largest] / 1e6:.1f} MB, more than {goal.words()}.",
            f"Ask for --size-budget {sizes[largest] / 1e6 + 0.1:.1f}MB, or leave this target out.",
        )


def _measured(run: Run, made: _Built, weight_bytes: int) -> Proven:
    """One target's part of the package, timed when asked for.

    A failing proof is not worth timing; nor is an interpreter, which would take seconds for what says nothing.
    """
    name = made.exported.target
    measurement = None
    if run.request.measure and made.report.passed and not targets.get(name).interpreted:
        entry = run.stage(
            "measure",
            f"{name} speed",
            measure_inputs(made.export_key, name, Machine.here().identity),
            lambda _: {"target": name, "exported": to_json(made.exported), "weight_bytes": weight_bytes},
            threads=Machine.here().cores,
        )
        measurement = from_json(entry.value, Measurement)
    return Proven(
        title=targets.get(name).title,
        exported=made.exported,
        export_key=made.export_key,
        report=made.report,
        measurement=measurement,
        build_seconds=made.seconds,
        peak_rss_bytes=made.peak_rss_bytes,
        vendor_versions=vendor_versions(targets.get(name)),
    )
