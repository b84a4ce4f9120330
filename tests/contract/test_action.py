"""The composite action's steps, run as GitHub's runner would: expressions resolved, outputs read, in order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import TinyBuild
from tests.contract.test_model_signing import REQUIREMENTS

pytestmark = pytest.mark.heavy
ACTION = Path(__file__).parents[2] / ".github" / "actions" / "build"
EXPRESSION = re.compile(r"\$\{\{ ([\w.-]+) \}\}")


class Runner:
    """The part of GitHub's runner that composite actions with `run` steps need; `uses` steps are passed over."""

    def __init__(self, temp: Path, inputs: Mapping[str, str], **environment: str) -> None:
        self.action = yaml.safe_load((ACTION / "action.yml").read_text())
        self.temp = temp
        self.environment = os.environ | {"RUNNER_TEMP": str(temp)} | environment
        self.values = {"github.action_path": str(ACTION), "runner.os": "Linux"}
        for name, declared in self.action["inputs"].items():
            self.values[f"inputs.{name}"] = inputs.get(name, declared.get("default", ""))
        self.summary = temp / "summary.md"
        self.log = ""

    def resolve(self, text: str) -> str:
        return EXPRESSION.sub(lambda match: self.values.get(match[1], ""), text)

    def wanted(self, step: Mapping[str, Any]) -> bool:
        condition = re.fullmatch(r"\$\{\{ inputs\.([\w-]+) != '(.*)' \}\}", step.get("if", ""))
        return condition is None or self.values[f"inputs.{condition[1]}"] != condition[2]

    def run(self) -> dict[str, str]:
        """Run every step; the action's outputs."""
        for step in self.action["runs"]["steps"]:
            if "run" in step and self.wanted(step):
                self.step(step)
        return {name: self.resolve(declared["value"]) for name, declared in self.action["outputs"].items()}

    def step(self, step: Mapping[str, Any]) -> None:
        outputs = self.temp / f"{step['id']}.out"
        outputs.touch()
        variables = {name: self.resolve(value) for name, value in step.get("env", {}).items()}
        files = {"GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(self.summary), "GITHUB_ACTIONS": "true"}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env=self.environment | files | variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.log += done.stdout + done.stderr
        assert done.returncode == 0, f"{step['id']}: {done.stderr[-3000:]}"
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            self.values[f"steps.{step['id']}.outputs.{name}"] = value


@pytest.fixture
def inputs(tiny_build: TinyBuild, tmp_path: Path) -> dict[str, str]:
    return {
        "model": str(tiny_build.model), "recipe": "float16", "targets": "litert", "context": "512",
        "publish": str(tmp_path / "published"),
    }  # fmt: skip


def test_build_sign_and_publish(tiny_build: TinyBuild, inputs: dict[str, str], tmp_path: Path) -> None:
    from kobako.pipeline.sign import write_new_key
    from kobako.pipeline.signature.trust import trust_key
    from kobako.pipeline.verify import verify

    public, _ = write_new_key(tmp_path / "key.pem", None)
    secret = (tmp_path / "key.pem").read_text()
    runner = Runner(
        tmp_path, inputs | {"sign": "key", "provenance": "true"}, PYTHON=sys.executable,
        KOBAKO_CACHE=str(tiny_build.cache), KOBAKO_SIGNING_KEY=secret,
    )  # fmt: skip
    outputs = runner.run()
    assert outputs["name"] == "tiny-float16"
    verify(Path(outputs["package"]), trust_key(public))
    index = json.loads((tmp_path / "published" / "index.json").read_text())
    assert outputs["address"] == f"{tmp_path / 'published'}@{index['latest']}"
    summary = runner.summary.read_text()
    assert "LiteRT" in summary
    assert outputs["address"] in summary
    assert json.loads(Path(outputs["provenance"]).read_text())["predicateType"] == "https://slsa.dev/provenance/v1"
    assert "::notice" in runner.log
    assert secret.splitlines()[1] not in runner.log
    assert not list(tmp_path.glob("key.??????")), "the private key stayed on the disk"
    assert (tmp_path / "kobako-junit.xml").is_file()


def test_an_unsigned_package_is_published_only_when_asked_to(
    tiny_build: TinyBuild, inputs: dict[str, str], tmp_path: Path
) -> None:
    runner = Runner(tmp_path, inputs, PYTHON=sys.executable, KOBAKO_CACHE=str(tiny_build.cache))
    with pytest.raises(AssertionError, match="is not signed"):
        runner.run()
    assert not (tmp_path / "published").exists()
    runner.values["inputs.allow-unsigned"] = "true"
    assert runner.run()["address"]


def test_the_tool_of_keyless_signing_is_installed_apart(tmp_path: Path) -> None:
    """The real one, from the package index, in the version that the other tests hold against kobako."""
    runner = Runner(tmp_path, {"model": "", "sign": "keyless"}, PYTHON=sys.executable)
    runner.step(next(step for step in runner.action["runs"]["steps"] if step.get("id") == "install"))
    tool = tmp_path / "kobako-tools" / "model_signing"
    shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    assert REQUIREMENTS[0].rpartition("==")[2] in shown.stdout
    assert tool.resolve().with_name("python3").exists()
    assert tool.resolve().parent != Path(sys.executable).parent


def test_hostile_inputs_stay_words(inputs: dict[str, str], tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    hostile = inputs | {"model": f'x"; touch {evil}; $(touch {evil}) `touch {evil}`'}
    with pytest.raises(AssertionError, match="build"):
        Runner(tmp_path, hostile, PYTHON=sys.executable).run()
    assert not evil.exists()


@pytest.mark.parametrize("encoder", [False, True])
def test_core_ml_on_two_machines_is_compared(tmp_path: Path, encoder: bool) -> None:
    def report(kl: float, *, passed: bool = True) -> dict[str, Any]:
        ways = {way: {"kl_nats": kl, "top1": 0.99} for way in ("decode", "prefill")}
        texts = {"texts": {"distance": kl, "largest_error": kl}}
        return {"passed": passed, "figures": {"fidelity": texts if encoder else ways}}

    compare = ACTION.parent / "compare-coreml" / "compare"
    (tmp_path / "built.json").write_text(json.dumps({"targets": {"coreml": {"report": report(2e-5)}}}))
    for there, code in (
        ({"coreml": report(5e-5)}, 0),
        ({"coreml": report(0.5)}, 1),
        ({"coreml": report(2e-5, passed=False)}, 1),
        ({"error": {"kind": "BadArtifact", "what": "no"}}, 1),
    ):
        (tmp_path / "proven.json").write_text(json.dumps(there))
        done = subprocess.run(
            [sys.executable, compare, tmp_path / "built.json", tmp_path / "proven.json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        assert done.stdout.startswith("## Core ML")
