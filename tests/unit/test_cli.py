"""The command line as a user meets it: help, speed, errors and exit codes. Real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kobako.pipeline.errors import all_errors
from tiny_package import write_package

KOBAKO = str(Path(sys.executable).parent / "kobako")


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KOBAKO, *arguments], capture_output=True, text=True, env=os.environ | environment, cwd=cwd,
        stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip


def test_help_shows_commands_example_and_exit_codes() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for command in ("build", "plan", "validate", "run", "bench", "inspect", "doctor", "models", "cache"):
        assert command in shown.stdout
    assert "kobako build smollm2-135m-instruct" in shown.stdout
    for error in all_errors():
        assert f"{error.exit_code}  " in shown.stdout


def test_reading_a_manifest_compiles_no_grammars(tmp_path: Path) -> None:
    """Of a package that jsonschema imports where it is installed, and that takes a second."""
    package = write_package(tmp_path / "work", tmp_path / "toy")
    (tmp_path / "rfc3987_syntax.py").write_text("raise SystemExit('it was imported')")
    shown = run("verify", str(package), "--allow-unsigned", PYTHONPATH=str(tmp_path))
    assert "it was imported" not in shown.stdout + shown.stderr
    assert shown.returncode == 0, shown.stderr


def test_help_is_quick() -> None:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        run("--help")
        times.append(time.perf_counter() - started)
    # 0.3 s is the promise on a quiet machine; importing torch or a vendor would take seconds
    assert min(times) < 0.5


@pytest.mark.parametrize(
    "command", ["build", "plan", "validate", "run", "bench", "inspect", "doctor", "models", "cache"]
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = run(command, "--help")
    assert shown.returncode == 0
    assert f"Example: kobako {command}" in shown.stdout


def test_exit_codes_are_distinct() -> None:
    codes = [error.exit_code for error in all_errors()]
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 70, 130} & set(codes)


def test_readme_lists_every_exit_code() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for error in all_errors():
        assert f"| {error.exit_code} | `{error.__name__}` |" in readme


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("build", "smolm2-135m-instruct"), 3, "smollm2-135m-instruct"),
        (("build", "smollm2-135m-instruct", "--target", "onnx"), 3, "Targets: coreml, executorch, litert"),
        (("build", "smollm2-135m-instruct", "--recipe", "int3"), 2, "int8"),
        (("build", "smollm2-135m-instruct", "--memory-limit", "lots"), 2, "6GB"),
        (("build", "./no/such/dir"), 3, "no/such/dir"),
        (("validate", "nowhere"), 15, "not a kobako package"),
        (("run", "nowhere", "text"), 15, "not a kobako package"),
        (("inspect", "nowhere.pte"), 3, "does not exist"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_bad_input_is_an_error_with_its_code_and_no_traceback(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    shown = run(*arguments, cwd=tmp_path, KOBAKO_CACHE=str(tmp_path / "cache"))
    assert shown.returncode == code, shown.stderr
    assert words in shown.stderr
    assert "Traceback" not in shown.stderr


def test_an_error_is_json_when_json_was_asked_for(tmp_path: Path) -> None:
    shown = run("validate", "nowhere", "--json", cwd=tmp_path)
    error = json.loads(shown.stdout)["error"]
    assert error["kind"] == "BadArtifact"
    assert error["exit_code"] == shown.returncode == 15


def test_github_gets_an_annotation(tmp_path: Path) -> None:
    shown = run("validate", "nowhere", cwd=tmp_path, GITHUB_ACTIONS="true")
    assert "::error title=kobako%3A BadArtifact::" in shown.stderr


def test_models_and_doctor_speak_json(tmp_path: Path) -> None:
    models = json.loads(run("models", "--json").stdout)
    assert "smollm2-135m-instruct" in {model["name"] for model in models}
    facts = json.loads(run("doctor", "--json", KOBAKO_CACHE=str(tmp_path)).stdout)
    assert facts["cores"] >= 1
    assert set(facts["targets"]) == {"coreml", "executorch", "litert"}


def test_cache_ls_and_prune_on_an_empty_cache(tmp_path: Path) -> None:
    assert json.loads(run("cache", "ls", "--json", KOBAKO_CACHE=str(tmp_path / "none")).stdout) == []
    assert run("cache", "prune", KOBAKO_CACHE=str(tmp_path / "none")).returncode == 0


def test_an_unwritable_output_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    shown = run("build", "smollm2-135m-instruct", "--out", str(tmp_path / "file"), KOBAKO_CACHE=str(tmp_path / "c"))
    assert shown.returncode == 12
    assert "not a kobako package" in shown.stderr
    assert (tmp_path / "file").read_text() == "mine"
