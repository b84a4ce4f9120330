"""The command line of ``scripts/bench/peers``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace

from measured import StepFailed
from qualitytable import quality_markdown, quality_ratios
from steps import Step, all_steps
from table import markdown, summarize
from workspace import HOME, Workspace

ABOUT = """\
Measures kobako beside the nearest tools on SmolLM2-135M-Instruct, on this machine, and prints one table.

Each peer gets an environment of its own under .cache/peers/NAME/venv. Every step leaves its result in
.cache/peers/results/STEP.json; a second run goes on where the first one stopped. The whole takes about half an hour
on two cores, and timings mean something only when nothing else runs."""


def arguments() -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench/peers", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0; 1 when a step failed; 3 when all was measured and a ratio does not hold.",
    )  # fmt: skip
    parser.add_argument("action", nargs="?", choices=("run", "table", "steps"), default="run",
                        help="run what is left and print the table [default]; table only; list the steps")  # fmt: skip
    parser.add_argument("--quality", action="store_true",
                        help="sizes and losses only: no timing, so the machine need not be quiet")  # fmt: skip
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="run just this step; repeatable")
    parser.add_argument("--fresh", action="store_true",
                        help="redo steps that are done (environments only when named by --only)")  # fmt: skip
    parser.add_argument("--llama-cpp", action="store_true",
                        help="also llama.cpp, the speed a user could have instead (compiles six minutes)")  # fmt: skip
    parser.add_argument("--layers", type=int, metavar="N",
                        help="cut the model to N layers: a dry run of every step, in .cache/peers/dry-N")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser.parse_args()


def main() -> int:
    """Run, then show."""
    asked = arguments()
    workspace = Workspace(asked.layers)
    steps = [step for step in all_steps(llama_cpp=asked.llama_cpp) if not (asked.quality and step.name == "speed")]
    if unknown := set(asked.only) - {step.name for step in steps}:
        say(f"unknown step {', '.join(sorted(unknown))}; there are: {', '.join(step.name for step in steps)}")
        return 2
    if asked.action == "steps":
        for step in steps:
            print(f"{'done' if step.done(workspace) else 'due':5} {step.name:24} {step.about}")
        return 0
    failed = []
    if asked.action == "run":
        failed = run(steps, workspace, only=asked.only, fresh=asked.fresh)
    summary = summarize(workspace)
    if asked.quality:
        summary = replace(summary, ratios=tuple(quality_ratios({row.name: row for row in summary.rows})))
    text = quality_markdown if asked.quality else markdown
    print(json.dumps(summary.as_json(), indent=2, ensure_ascii=False) if asked.json else text(summary))
    if failed:
        say(f"failed: {', '.join(failed)}; run again to go on from there")
        return 1
    return 3 if any(ratio.holds is False for ratio in summary.ratios) and workspace.layers is None else 0


def run(steps: list[Step], workspace: Workspace, *, only: list[str], fresh: bool) -> list[str]:
    """Run what is due (or what `only` names); names of the steps that failed."""
    failed = []
    workspace.root.mkdir(parents=True, exist_ok=True)
    for step in steps:
        if only and step.name not in only:
            continue
        redo = fresh and (bool(only) or not step.kept)
        if step.done(workspace) and not redo:
            say(f"{step.name}: done before")
            continue
        if missing := step.missing(workspace):
            say(f"{step.name}: skipped, it needs {', '.join(missing)}")
            failed.append(step.name)
            continue
        if not carried_out(step, workspace):
            failed.append(step.name)
    return failed


def carried_out(step: Step, workspace: Workspace) -> bool:
    """Run one step and store its result; False when it failed."""
    say(f"{step.name}: {step.about} …")
    started = time.monotonic()
    try:
        workspace.store(step.name, step.work(workspace))
    except (StepFailed, OSError, ValueError, KeyError) as error:
        say(f"{step.name} FAILED after {time.monotonic() - started:.0f} s: {error}")
        return False
    say(f"{step.name}: {time.monotonic() - started:.0f} s")
    return True


def say(text: str) -> None:
    """A line of progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    HOME.mkdir(parents=True, exist_ok=True)
    sys.exit(main())
