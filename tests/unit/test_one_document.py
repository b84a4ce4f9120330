"""``--json`` promises one document on stdout, also of a proof that fails; and the Mac's comparison reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kobako.pipeline import reprove
from kobako.pipeline.cli import main
from kobako.pipeline.contracts import Check, Report
from kobako.pipeline.errors import BadArtifact

COMPARE = Path(__file__).parents[2] / ".github" / "actions" / "compare-coreml" / "compare"


def report(kl: float, passed: bool) -> Report:
    fidelity = {way: {"kl_nats": kl, "top1": 0.5} for way in ("decode", "prefill")}
    check = Check(part="fidelity", name="decode KL", value=f"{kl:.2e} nats", demand="≤ 0.001", passed=passed)
    return Report(
        target="coreml", recipe="int8", activations="float32", checks=(check,), figures={"fidelity": fidelity}
    )


def validated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], outcome: Report | Exception
) -> tuple[int, str, str]:
    """What ``kobako validate --json`` exits with and prints when the proof comes to `outcome`."""

    def proven(*_: object) -> dict[str, Report]:
        if isinstance(outcome, Exception):
            raise outcome
        return {"coreml": outcome}

    monkeypatch.setattr(reprove, "reprove", proven)
    monkeypatch.setattr(sys, "argv", ["kobako", "validate", "package", "--json", "--quiet"])
    with pytest.raises(SystemExit) as end:
        main.main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize("kl", [0.5, float("nan"), float("inf")])
def test_a_failing_proof_prints_its_report_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kl: float
) -> None:
    code, out, err = validated(monkeypatch, capsys, report(kl, passed=False))
    assert code == 6
    assert "does not pass its proof" in err

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    said = json.loads(out, parse_constant=no_constant)
    assert said["coreml"]["passed"] is False
    assert "error" not in said


def test_an_error_without_a_result_is_the_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = validated(monkeypatch, capsys, BadArtifact("broken"))
    assert code == 15
    assert json.loads(out)["error"]["kind"] == "BadArtifact"


def compared(tmp_path: Path, built: Report, said: str) -> subprocess.CompletedProcess[str]:
    from kobako.pipeline.codec import to_json, write_json

    entry = to_json(built) | {"passed": built.passed}
    write_json(tmp_path / "report.json", {"targets": {"coreml": {"report": entry}}})
    (tmp_path / "coreml.json").write_text(said)
    return subprocess.run(
        [sys.executable, COMPARE, tmp_path / "report.json", tmp_path / "coreml.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def mac_says(outcome: Report) -> str:
    from kobako.pipeline.codec import json_text, to_json

    return json_text({"coreml": to_json(outcome) | {"passed": outcome.passed}}) + "\n"


@pytest.mark.parametrize(
    ("built", "proven", "words"),
    [
        (report(1e-6, True), report(2e-6, True), "✅ They agree"),
        (report(1e-6, True), report(0.5, False), "❌ They disagree"),
        (report(1e-6, True), report(0.5, True), "❌ They disagree"),
        (report(1e-6, True), report(float("nan"), False), "no number"),
        (report(0.5, False), report(0.5, False), "✅ They agree"),
    ],
)
def test_a_mac_whose_proof_fails_is_compared(tmp_path: Path, built: Report, proven: Report, words: str) -> None:
    done = compared(tmp_path, built, mac_says(proven))
    assert words in done.stdout, done.stderr
    assert done.returncode == (0 if "✅" in words else 1)
    assert done.stderr == ""
    if not proven.passed:
        assert "Core ML, fidelity decode KL" in done.stdout


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "printed no JSON"),
        ("Killed", "Killed"),
        ('{"error": {"kind": "NotFound", "what": "no target"}}', "NotFound: no target"),
        ("{}", "no coreml in it"),
        (mac_says(report(0.5, False)) + '{"error": {"kind": "ProofFailed", "what": "x"}}\n', "**failed**"),
    ],
)
def test_whatever_else_the_mac_printed_is_told(tmp_path: Path, said: str, words: str) -> None:
    done = compared(tmp_path, report(1e-6, True), said)
    assert words in done.stdout, done.stderr
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_report_without_fidelity_is_told(tmp_path: Path) -> None:
    broken: dict[str, Any] = {"coreml": {"passed": False, "figures": {}, "checks": []}}
    done = compared(tmp_path, report(1e-6, True), json.dumps(broken))
    assert "❌ They disagree" in done.stdout, done.stderr
