"""The main job on a real model, in the real runtimes, through the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from kobako.pipeline.manifest import all_files, check_files, read_manifest

from tests.e2e.conftest import KOBAKO, MODEL, Call

pytestmark = pytest.mark.real
TARGETS = ["coreml", "executorch", "litert"]
PARAGRAPH = (
    "Scientists working in the rainforest of Ecuador have described a frog that nobody had recorded before. It lives "
    "in the canopy, is the size of a thumbnail, and calls only after heavy rain. Its forest is being logged."
)


def test_every_target_is_proven(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    assert sorted(report["targets"]) == TARGETS
    for name, target in report["targets"].items():
        assert target["report"]["passed"]
        assert (target["measurement"] is None) == (name == "coreml")  # an interpreter's speed would say nothing
        fidelity = target["report"]["figures"]["fidelity"]
        assert fidelity["decode"]["positions"] >= 512
        assert target["peak_rss_bytes"] < 3e9
    assert read_manifest(built)["proven"] is True


def test_the_package_is_complete(built: Path) -> None:
    manifest = read_manifest(built)
    check_files(built, manifest)
    listed = {entry["path"] for entry in all_files(manifest)}
    on_disk = {str(p.relative_to(built)) for p in built.rglob("*") if p.is_file()}
    assert on_disk - listed == {"kobako.json"}
    for name in ("executorch/model.pte", "litert/model.litertlm", "litert/model.tflite", "report.html", "LICENSE"):
        assert name in listed
    assert any(name.startswith("coreml/model.mlpackage/") for name in listed)
    assert manifest["model"]["licence"] == "Apache-2.0"
    assert manifest["stop_ids"] == [2]


def test_a_second_build_does_nothing_and_is_quick(built: Path, kobako: Call) -> None:
    before = (built / "kobako.json").stat().st_mtime_ns
    shown = kobako("build", MODEL, "--recipe", "int8", "--out", built, "--json")
    assert shown.code == 0
    assert shown.json["unchanged"] is True
    assert (built / "kobako.json").stat().st_mtime_ns == before
    assert shown.cpu_seconds < 3.0


@pytest.mark.parametrize("target", TARGETS)
def test_every_artifact_summarizes(built: Path, kobako: Call, target: str) -> None:
    shown = kobako("run", built, "--target", target, "--task", "summarize", "--max-tokens", "40", PARAGRAPH)
    assert shown.code == 0, shown.err
    assert "frog" in shown.out.lower()
    assert "<|" not in shown.out
    assert "tok/s" in shown.err


def test_a_set_leads_a_task_to_its_package(built: Path, kobako: Call, tmp_path: Path) -> None:
    made = kobako("set", "make", tmp_path / "set", "--task", f"summarize={built}")
    assert made.code == 0, made.err
    asked = ("--target", "litert", "--task", "summarize", "--max-tokens", "12", "--json", PARAGRAPH)
    assert kobako("run", tmp_path / "set", *asked).json["text"] == kobako("run", built, *asked).json["text"]


def test_the_package_proves_itself_again_without_cache_or_model(built: Path, kobako: Call, tmp_path: Path) -> None:
    shown = kobako(
        "validate", built, "--target", "litert", "--target", "executorch", "--json", "--junit", tmp_path / "j.xml",
        KOBAKO_CACHE=str(tmp_path / "empty"),
    )  # fmt: skip
    assert shown.code == 0, shown.err
    assert {name: report["passed"] for name, report in shown.json.items()} == {"litert": True, "executorch": True}
    took = re.findall(r"(?:litert|executorch) proof: \d+ (?:min|s)\b", shown.err)
    assert len(took) == 2, shown.err  # seconds, as a proof takes
    suites = ET.parse(tmp_path / "j.xml").getroot()
    assert len(list(suites.iter("testcase"))) >= 10
    assert not list(suites.iter("failure"))


def test_a_flipped_byte_is_refused_before_anything_runs(copy: Path, kobako: Call) -> None:
    path = copy / "litert" / "model.litertlm"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for command in (("validate", copy), ("run", copy, "--target", "litert", "hello")):
        shown = kobako(*command)
        assert shown.code == 7
        assert "model.litertlm" in shown.err


def test_a_changed_weight_with_a_matching_digest_fails_the_proof(copy: Path, kobako: Call) -> None:
    """Someone who can rewrite the manifest still cannot make another model pass: the gates look at the integers."""
    from kobako.pipeline.manifest import sha256_of

    path = copy / "executorch" / "model.pte"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20000] = bytes(20000)
    path.write_bytes(data)
    manifest = json.loads((copy / "kobako.json").read_text())
    for entry in manifest["targets"]["executorch"]["files"]:
        if entry["path"] == "executorch/model.pte":
            entry["sha256"] = sha256_of(path)
    (copy / "kobako.json").write_text(json.dumps(manifest))
    shown = kobako("validate", copy, "--target", "executorch")
    assert shown.code == 6, shown.err
    assert "integers" in shown.err


def test_inspect_reads_every_artifact(built: Path, kobako: Call) -> None:
    for name in (".", "executorch/model.pte", "coreml/model.mlpackage", "litert/model.tflite", "litert/model.litertlm"):
        shown = kobako("inspect", built / name, "--json")
        assert shown.code == 0, shown.err
        assert shown.json


def test_plan_knows_what_is_cached(built: Path, kobako: Call) -> None:
    shown = kobako("plan", MODEL, "--recipe", "int8", "--json").json
    assert {step["state"] for step in shown["steps"]} == {"cached"}
    assert "has another grid" in shown["note"]
    planned = kobako("plan", MODEL, "--recipe", "int4", "--json").json
    assert "4-bit blocks of 32, which recipe int4 keeps" in planned["note"]
    other = {step["stage"]: step for step in planned["steps"]}
    assert other["load"]["state"] == "cached"
    assert other["original"]["state"] == "cached"  # whatever the recipe
    assert other["litert export"]["rss_bytes"] > 0


def test_a_context_beyond_the_models_is_refused(built: Path, kobako: Call, tmp_path: Path) -> None:
    shown = kobako("build", MODEL, "--context", "16384", "--out", tmp_path / "p")
    assert shown.code == 8
    assert "8192" in shown.err
    assert not (tmp_path / "p").exists()


def test_too_little_memory_is_said_before_starting(built: Path, kobako: Call, tmp_path: Path) -> None:
    shown = kobako("build", MODEL, "--memory-limit", "200MB", "--out", tmp_path / "p")
    assert shown.code == 10
    assert "0.2 GB may be used" in shown.err


def test_github_gets_summary_and_notice(built: Path, kobako: Call, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    shown = kobako(
        "build", MODEL, "--recipe", "int8", "--out", built, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary)
    )
    assert shown.code == 0
    assert "::notice" in shown.err
    assert all(title in summary.read_text() for title in ("ExecuTorch", "Core ML", "LiteRT"))


def test_killed_at_any_moment_the_next_build_continues(built: Path, kobako: Call, tmp_path: Path) -> None:
    """kill -9 during the stages of a build with another context, then the same command again."""
    arguments = ["build", MODEL, "--target", "coreml", "--context", "128", "--no-measure", "--out", str(tmp_path / "p")]
    for delay in (0.5, 1.5, 4.0, 9.0):
        process = subprocess.Popen([KOBAKO, *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "p").exists()
    shown = kobako(*arguments)
    assert shown.code == 0, shown.err
    check_files(tmp_path / "p", read_manifest(tmp_path / "p"))


def test_two_builds_at_once_share_the_work(built: Path, tmp_path: Path) -> None:
    """Both succeed, with the same result, and neither corrupts the other's cache."""
    commands = [
        [
            KOBAKO,
            "build",
            MODEL,
            "--target",
            "litert",
            "--context",
            "128",
            "--no-measure",
            "--out",
            str(tmp_path / name),
        ]
        for name in ("a", "b")
    ]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ) for command in commands]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert read_manifest(tmp_path / "a")["build_id"] == read_manifest(tmp_path / "b")["build_id"]
