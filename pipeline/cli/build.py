"""``kobako build``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..contracts import KvCache
from ..errors import UsageError
from ..licences import POLICIES, Policy
from .files import check_writable, write_file
from .options import (
    cache_option,
    calibrated_on,
    calibration_option,
    chosen_goal,
    chosen_options,
    chosen_recipe,
    chosen_targets,
    context_option,
    effort_option,
    json_option,
    kv_cache_option,
    max_kl_option,
    offline_option,
    open_cache,
    parse_bytes,
    print_json,
    quiet_option,
    recipe_option,
    size_budget_option,
    slice_option,
    target_option,
    with_effort,
)


@click.command("build", epilog="Example: kobako build smollm2-135m-instruct --target litert --size-budget 90MB")
@click.argument("model", required=False)
@click.option(
    "--matrix", type=click.Path(path_type=Path, dir_okay=False), help="Build all models of this list instead."
)
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", help="Where a --matrix is built.")
@click.option("--ray-address", help="Of the Ray cluster [default: $RAY_ADDRESS, or the one on this machine].")
@click.option("--shared-cache", default="", help="Cache that machines share, an fsspec URL such as s3://bucket/kobako.")
@target_option
@recipe_option
@size_budget_option
@max_kl_option
@calibration_option
@effort_option
@click.option("--adapter", default="", help="A LoRA adapter to merge first: a directory that PEFT saved, or a Hub id.")
@slice_option
@context_option
@kv_cache_option
@click.option(
    "--task", "tasks", multiple=True, help="What the package is for; repeatable [default: all the model can do]."
)
@click.option("--out", "-o", help="Package directory [default: dist/NAME-RECIPE]; of a --matrix, the place of all.")
@click.option(
    "--memory-limit", help="Largest resident memory of any process, like 6GB [default: 90 % of what is free]."
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(1),
    help="Stages that may run side by side, where they fit into memory together [default: the cores].",
)
@click.option("--allow-failing", is_flag=True, help="Write the package even if a proof fails, and mark it so.")
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Time artifacts in their engines; Core ML has none here.",
)
@click.option(
    "--licence-policy",
    default="warn",
    show_default=True,
    type=click.Choice(POLICIES),
    help="For licences that are not plainly permissive.",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Also write the proof as JUnit XML.")
@offline_option
@cache_option
@json_option
@quiet_option
def command(
    model: str | None,
    matrix: Path | None,
    executor: str,
    ray_address: str | None,
    shared_cache: str,
    targets: tuple[str, ...],
    recipe: str | None,
    size_budget: str | None,
    max_kl: float | None,
    calibration: Path | None,
    effort: str,
    adapter: str,
    slice_text: str,
    context_tokens: int | None,
    kv_cache: KvCache,
    tasks: tuple[str, ...],
    out: str | None,
    memory_limit: str | None,
    jobs: int | None,
    allow_failing: bool,
    measure: bool,
    licence_policy: Policy,
    junit: Path | None,
    offline: bool,
    cache_dir: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export, prove and package MODEL, or every model of a --matrix (docs/publishing.md).

    MODEL is a catalogue name (`kobako models`), a Hub id such as HuggingFaceTB/SmolLM2-360M-Instruct@REVISION, a
    directory, or a .gguf file. A second build of the same thing does nothing; an interrupted one continues.
    """
    from ..build import build
    from ..run import Request
    from .display import observer
    from .matrixbuild import MatrixOptions, build_matrix, check_alone, check_one

    if matrix is not None:
        check_alone(
            {
                "--target": targets, "--recipe": recipe, "--size-budget": size_budget, "--max-kl": max_kl,
                "--calibration": calibration, "--effort": effort != "normal", "--adapter": adapter,
                "--slice": slice_text, "--context": context_tokens, "--kv-cache": kv_cache != "float",
                "--task": tasks, "--memory-limit": memory_limit, "--jobs": jobs, "--junit": junit,
            }
        )  # fmt: skip
        orders = MatrixOptions(
            out=out or "dist", cache=str(cache_dir or ""), shared=shared_cache, measure=measure, offline=offline,
            allow_failing=allow_failing, licence_policy=licence_policy,
        )  # fmt: skip
        build_matrix(check_one(matrix, model), orders, executor, ray_address, as_json=as_json, quiet=quiet)
        return
    if model is None:
        raise UsageError("there is no model to build.", "Name one (`kobako models`), or a list with --matrix.")
    check_writable(junit)
    goal = chosen_goal(size_budget, max_kl)
    request = Request(
        model=model,
        targets=chosen_targets(targets),
        recipe=with_effort(calibrated_on(chosen_recipe(recipe, goal), calibration), effort),
        calibration=calibration,
        adapter=adapter,
        slice=slice_text,
        goal=goal,
        options=chosen_options(context_tokens, kv_cache),
        own_context=context_tokens is None,
        tasks=tasks,
        out=Path(out) if out else None,
        offline=offline,
        allow_failing=allow_failing,
        memory_limit_bytes=parse_bytes(memory_limit),
        jobs=jobs,
        measure=measure,
        licence_policy=licence_policy,
    )
    with observer(quiet) as watching:
        result = build(request, open_cache(cache_dir, shared_cache), watching)
    _show(result.package, result.unchanged, result.seconds, result.peak_rss_bytes, as_json=as_json, junit=junit)
    for concern in result.licence_concerns:
        click.echo(f"warning: licence: {concern}.", err=True)
    for name, failure in result.failures.items():
        click.echo(f"warning: {name} is not in the package: {failure}", err=True)


def _show(
    package: Path, unchanged: bool, seconds: float, peak_rss_bytes: int, *, as_json: bool, junit: Path | None
) -> None:
    from ..codec import read_json
    from ..report.words import human_bytes, human_seconds
    from .tables import console, result_table

    data = read_json(package / "report.json")
    if as_json:
        print_json({"package": str(package), "unchanged": unchanged, "seconds": seconds, "report": data})
    else:
        out = console()
        out.print(result_table(data))
        peak = f", peak RSS of any process {human_bytes(peak_rss_bytes)}" if peak_rss_bytes else ""
        done = f"{'was up to date' if unchanged else 'written'} in {human_seconds(seconds)}{peak}"
        out.print(f"{package} {done}. Details: {package / 'report.html'}", soft_wrap=True)
    _tell_ci(data, junit)


def _tell_ci(data: dict[str, Any], junit: Path | None) -> None:
    """JUnit XML when asked for; in GitHub Actions also the job summary and annotations."""
    from ..report.ci import annotations, job_summary, junit_xml

    if junit:
        write_file(junit, junit_xml(data))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(data):
            click.echo(line, err=True)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            write_file(Path(summary), job_summary(data), append=True)
