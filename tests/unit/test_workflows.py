"""GitHub files are what GitHub takes, and say what they must."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"


def test_schemas_and_actionlint() -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "check-workflows"], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHON": sys.executable, "HOME": "/tmp"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_inputs_never_reach_a_shell_as_text() -> None:
    """An expression inside `run` would let a model's name run commands; they come as variables instead."""
    for path in [*GITHUB.glob("workflows/*.yml"), *GITHUB.glob("actions/*/action.yml")]:
        for script in re.findall(r"run: (?:\|\n(?:\s+.*\n)+?(?=\s*(?:-|env:|shell:)))|run: .*", path.read_text()):
            assert "${{" not in script, f"{path.name}: {script}"


def test_permissions_are_narrow() -> None:
    """Reading, and nothing else; but a called workflow's `build` has what its caller gives it, such as an identity.

    A word of its own would take the caller's away, or, asking for more, let GitHub start nothing.
    """
    for path in GITHUB.glob("workflows/*.yml"):
        read = load(path)
        jobs = {name: job.get("permissions", read.get("permissions")) for name, job in read["jobs"].items()}
        if path.name == "build-package.yml":
            assert jobs.pop("build") is None
        assert jobs, path.name
        assert all(given == {"contents": "read"} for given in jobs.values()), path.name


def test_steps_are_given_what_they_read() -> None:
    """Every input, output and step that an expression of the action names is there."""
    action = load(GITHUB / "actions/build/action.yml")
    script = (GITHUB / "actions/build/steps").read_text()
    told = set(re.findall(r"output (\w+) ", script))
    ids = {step["id"]: step for step in action["runs"]["steps"] if "id" in step}
    for name in re.findall(r"inputs\.([\w-]+)", str(action)):
        assert name in action["inputs"], name
    for step, output in re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", str(action)):
        assert step in ids
        assert output in told or "uses" in ids[step], output
    for step in (one for one in ids.values() if "run" in one):
        assert step["run"] == f'"$STEPS" {step["id"]}'


def test_secrets_reach_the_action() -> None:
    workflow = load(GITHUB / "workflows/build-package.yml")
    used = set(re.findall(r"secrets\.([\w-]+)", str(workflow["jobs"])))
    assert used == set(workflow[True]["workflow_call"]["secrets"])


def test_the_reusable_workflow_gives_the_action_only_inputs_it_has() -> None:
    known = set(load(GITHUB / "actions/build/action.yml")["inputs"])
    for job in load(GITHUB / "workflows/build-package.yml")["jobs"].values():
        for step in job["steps"]:
            if "/actions/build@" in step.get("uses", ""):
                assert set(step["with"]) <= known


def test_the_example_in_the_docs_is_ten_lines_and_calls_it_rightly() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "publishing.md").read_text(), re.S)
    example = next(block for block in blocks if "build-package.yml@" in block)
    assert len(example.strip().splitlines()) <= 10
    workflow = load(GITHUB / "workflows/build-package.yml")
    called = workflow[True]["workflow_call"]  # YAML reads the key `on` as true
    (job,) = yaml.safe_load(example)["jobs"].values()
    assert set(job.get("with", {})) <= set(called["inputs"])
    assert set(job.get("secrets", {})) <= set(called["secrets"])
