"""The build matrix: what CI gets, and everything that is refused instead of guessed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from kobako.pipeline.cli.main import cli
from kobako.pipeline.errors import UsageError
from kobako.pipeline.matrix import read_matrix

GOOD = """
[defaults]
targets = ["litert"]
context = 512

[[model]]
model = "smollm2-135m-instruct"
recipes = ["int8", "int4"]
publish = "hf://me/smollm2-{recipe}@main"

[[model]]
model = "HuggingFaceTB/SmolLM2-360M-Instruct@main"
targets = ["coreml", "executorch"]
tasks = ["chat", "summarize"]
"""


def test_one_line_of_json_that_github_takes(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(GOOD)
    command = [sys.executable, "-m", "kobako.pipeline.cli.main", "matrix", str(tmp_path / "models.toml")]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.count("\n") == 1
    jobs = json.loads(shown.stdout)["include"]
    assert [job["name"] for job in jobs] == [
        "smollm2-135m-instruct-int8", "smollm2-135m-instruct-int4", "smollm2-360m-instruct-int4",
    ]  # fmt: skip
    assert jobs[1]["publish"] == "hf://me/smollm2-int4@main"
    assert jobs[2] == {
        "name": "smollm2-360m-instruct-int4", "model": "HuggingFaceTB/SmolLM2-360M-Instruct@main", "recipe": "int4",
        "targets": "coreml executorch", "context": 512, "tasks": "chat summarize", "publish": "", "memory_bytes": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no [[model]]"),
        ("[[model]]\n", "has no model"),
        ("[[model]]\nmodel = 3\n", "has no model"),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\nrecipe = "int8"\n', "unknown field 'recipe'"),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\nrecipes = "int8"\n', "recipes is not a list"),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\nrecipes = []\n', "recipes is not a list of words"),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\nrecipes = ["int3"]\n', "unknown recipe 'int3'"),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\ntargets = ["onnx"]\n', "unknown target 'onnx'"),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\ncontext = true\n', "context is not a int"),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\ncontext = 3\n', "context is not between"),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\npublish = "ftp://x/y"\n', "no place for packages"),
        (
            '[[model]]\nmodel = "smollm2-135m-instruct"\nrecipes = ["int8", "int4"]\npublish = "hf://a/b"\n',
            "several recipes to one place",
        ),
        ('[[model]]\nmodel = "smollm2-135m-instruct"\n' * 2, "in it twice"),
        ("[models]\n", "unknown field 'models'"),
        ("model = 7", "no [[model]]"),
        ("[[model", "not TOML"),
        ("[defaults]\nmodel='x'\n", "unknown field 'model'"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "models.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_matrix(tmp_path / "models.toml")
    assert said in caught.value.what


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_matrix(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "option",
    [
        ("--kv-cache", "int8"), ("--slice", "e2b"), ("--adapter", "mine"), ("--recipe", "int8"), ("--effort", "high"),
        ("--target", "litert"), ("--context", "512"), ("--size-budget", "90MB"), ("--task", "chat"),
    ],
)  # fmt: skip
def test_options_for_one_model_are_not_swallowed(option: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[[model]]\nmodel = "smollm2-135m-instruct"\n')
    said = CliRunner().invoke(cli, ["build", "--matrix", str(tmp_path / "models.toml"), *option])
    assert isinstance(said.exception, UsageError)
    assert option[0] in str(said.exception)
