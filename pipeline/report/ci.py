"""What CI shows: JUnit XML, the job summary, and GitHub's annotations.

Workflow commands are escaped as GitHub's runner unescapes them: ``%``, CR and LF everywhere; ``:`` and ``,`` also in
properties (actions/toolkit, packages/core/src/command.ts).
"""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as Xml

from . import words
from .facts import TargetFacts, headline, targets_of
from .markdown import markdown_table, proof_table, text


def junit_xml(data: Mapping[str, Any]) -> str:
    """One testsuite per target, one testcase per check; a suite's time is the target's build time."""
    clean: Mapping[str, Any] = words.cleaned(data)
    targets = targets_of(clean)
    root = Xml.Element("testsuites", {"name": f"kobako {clean['name']} {clean['recipe']['name']}"})
    for target in targets:
        root.append(_suite(target, clean))
    for name, why in clean["failures"].items():
        root.append(_unmade(name, why))
    _count(root, [check for target in targets for check in target.checks])
    root.set("time", f"{sum(target.entry['build_seconds'] for target in targets):.3f}")
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _suite(target: TargetFacts, data: Mapping[str, Any]) -> Xml.Element:
    suite = Xml.Element("testsuite", {"name": target.name, "time": f"{target.entry['build_seconds']:.3f}"})
    _count(suite, target.checks)
    for check in target.checks:
        place = {"classname": f"{data['name']}.{target.name}.{check['part']}", "name": check["name"]}
        case = Xml.SubElement(suite, "testcase", place)
        evidence = f"{check['value']}, demanded {check['demand']}"
        if check["passed"]:
            Xml.SubElement(case, "system-out").text = evidence
        else:
            failure = Xml.SubElement(case, "failure", {"message": evidence, "type": check["part"]})
            failure.text = check["detail"] or evidence
    return suite


def _unmade(name: str, why: str) -> Xml.Element:
    """The suite of a target that could not be made at all."""
    suite = Xml.Element("testsuite", {"name": name, "tests": "1", "failures": "0", "errors": "1", "time": "0"})
    case = Xml.SubElement(suite, "testcase", {"classname": name, "name": "export"})
    Xml.SubElement(case, "error", {"message": why})
    return suite


def _count(element: Xml.Element, checks: list[Mapping[str, Any]]) -> None:
    element.set("tests", str(len(checks)))
    element.set("failures", str(sum(not check["passed"] for check in checks)))
    element.set("errors", "0")


def job_summary(data: Mapping[str, Any]) -> str:
    """Markdown for ``$GITHUB_STEP_SUMMARY``: the verdict, the table, and every failing check."""
    clean: Mapping[str, Any] = words.cleaned(data)
    targets = targets_of(clean)
    sign = "✅" if targets and not clean["failures"] and all(target.passed for target in targets) else "❌"
    parts = [
        f"## {sign} {text(clean['name'])} · {text(clean['recipe']['name'])}: {text(headline(clean))}",
        proof_table(clean),
    ]
    failures = [_failure(target, check) for target in targets for check in target.failures]
    if failures:
        head = ["Target", "Check", "Measured", "Demanded", "Detail"]
        parts.append(f"### What does not hold\n\n{markdown_table(head, failures)}")
    notes = [f"- {text(target.title)}: {text(note)}" for target in targets for note in target.caveats]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"


def _failure(target: TargetFacts, check: Mapping[str, Any]) -> list[str]:
    name = f"{check['part']}: {check['name']}"
    return [text(cell) for cell in (target.title, name, check["value"], check["demand"], check["detail"])]


def annotations(data: Mapping[str, Any]) -> list[str]:
    """One ``::error`` per failing check, or one ``::notice`` with the verdict when all hold."""
    clean: Mapping[str, Any] = words.cleaned(data)
    targets = targets_of(clean)
    lines = [error_annotation(f"{name}: not made", why) for name, why in clean["failures"].items()]
    for target in targets:
        for check in target.failures:
            message = f"{check['value']}, demanded {check['demand']}"
            message += f". {check['detail']}" if check["detail"] else ""
            lines.append(error_annotation(f"{target.title}: {check['part']} {check['name']}", message))
    if not lines and targets:
        lines.append(_command("notice", f"{clean['name']} {clean['recipe']['name']}", headline(clean)))
    return lines


def error_annotation(title: str, message: str) -> str:
    """An ``::error`` line."""
    return _command("error", title, message)


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(words.cleaned(title))}::{_message(words.cleaned(message))}"


def _message(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _message(value).replace(":", "%3A").replace(",", "%2C")
