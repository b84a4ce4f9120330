"""JUnit that parses, annotations that GitHub's runner reads back as they were meant, and a summary."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as Xml

from kobako.pipeline.report import ci

COMMAND = re.compile(r"::(?P<kind>\w+) title=(?P<title>[^:,\r\n]*)::(?P<message>[^\r\n]*)")


def as_the_runner_reads_it(line: str) -> tuple[str, str, str]:
    """Kind, title and message of a workflow command; fails when it is not exactly one."""
    found = COMMAND.fullmatch(line)
    assert found, line
    title = found["title"].replace("%3A", ":").replace("%2C", ",")
    return found["kind"], _plain(title), _plain(found["message"])


def _plain(value: str) -> str:
    return value.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")


def test_junit_has_a_suite_per_target_and_a_case_per_check(broken: dict[str, Any], hostile: str) -> None:
    root = Xml.fromstring(ci.junit_xml(broken).encode())
    suites = {suite.get("name"): suite for suite in root.findall("testsuite")}
    assert list(suites) == ["executorch", "coreml", "litert"]
    assert (root.get("tests"), root.get("failures")) == ("30", "3")
    litert = suites["litert"]
    assert (litert.get("tests"), litert.get("failures"), litert.get("time")) == ("8", "3", "74.200")
    failures = litert.findall("testcase/failure")
    assert failures[0].get("message") == "nan nats, demanded ≤ 0.02"
    assert failures[0].text == "layer 12 is the first whose keys depart: relative error 0.91"
    assert (failures[2].text or "").startswith(hostile.partition("\x00")[0])
    for name, target in broken["targets"].items():
        cases = [case.get("name") for case in suites[name].findall("testcase")]
        assert cases == [check["name"] for check in target["report"]["checks"]]


def test_junit_starts_with_its_declaration_and_has_no_forbidden_character(broken: dict[str, Any]) -> None:
    text = ci.junit_xml(broken)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ')
    assert text.endswith("</testsuites>\n")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", text)


def test_one_error_per_failing_check(broken: dict[str, Any]) -> None:
    lines = [as_the_runner_reads_it(line) for line in ci.annotations(broken)]
    assert [kind for kind, _, _ in lines] == ["error"] * 3
    assert lines[1][1:] == (
        "LiteRT: fidelity decode top-1",
        "41.0%, demanded ≥ 90%. layer 12 is the first whose keys depart: relative error 0.91",
    )
    assert "\nline 2, col: 3" in lines[2][2]


def test_one_notice_when_all_pass(proven: dict[str, Any]) -> None:
    (line,) = ci.annotations(proven)
    assert as_the_runner_reads_it(line) == (
        "notice",
        "smollm2-135m-instruct int8",
        "All three formats are proven to say what the model says.",
    )


def test_nothing_in_a_message_can_be_another_command() -> None:
    title, message = "a:b,c%3A\n::warning::x", "100% %0A\r\n::set-output name=x::y"
    assert as_the_runner_reads_it(ci.error_annotation(title, message)) == ("error", title, message)


def test_summary_shows_the_table_and_what_fails(broken: dict[str, Any], proven: dict[str, Any]) -> None:
    summary = ci.job_summary(broken)
    assert summary.startswith("## ❌ smollm2-135m-instruct · int8: LiteRT does not pass the proof.\n")
    assert "| LiteRT | fidelity: decode top-1 | 41.0% | ≥ 90% | layer 12" in summary
    assert "<b onload" not in summary
    for table in re.findall(r"(?:^\|.*\n)+", summary, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    good = ci.job_summary(proven)
    assert good.startswith("## ✅ ")
    assert "What does not hold" not in good
