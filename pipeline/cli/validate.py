"""``kobako validate``."""

from __future__ import annotations

from pathlib import Path

import click

from .files import check_writable, write_file
from .options import json_option, print_json, quiet_option, target_option


@click.command("validate", epilog="Example: kobako validate dist/smollm2-135m-instruct-int8")
@click.argument("package", type=click.Path(path_type=Path))
@target_option
@click.option("--junit", type=click.Path(path_type=Path), help="Also write the proof as JUnit XML.")
@json_option
@quiet_option
def command(package: Path, targets: tuple[str, ...], junit: Path | None, as_json: bool, quiet: bool) -> None:
    """Check every file of PACKAGE against its digest, then prove each target again in its real runtime.

    The package is held against its own golden files, so neither the model nor the cache is needed.
    """
    from ..codec import to_json
    from ..manifest import read_manifest
    from ..package import proof_error
    from ..reprove import reprove
    from .display import observer

    check_writable(junit)
    with observer(quiet) as watching:
        reports = reprove(package, targets, watching)
    if as_json:
        print_json({name: to_json(report) | {"passed": report.passed} for name, report in reports.items()})
    else:
        for name, report in reports.items():
            click.echo(f"{name}: {'passed' if report.passed else 'FAILED'}")
            for check in report.checks:
                mark = "✓" if check.passed else "✗"
                click.echo(f"  {mark} {check.part:<10} {check.name:<22} {check.value:<24} {check.demand}")
    if junit:
        from ..report.ci import junit_xml

        manifest = read_manifest(package)
        shown = {
            name: {"title": name, "report": to_json(report), "build_seconds": 0.0} for name, report in reports.items()
        }
        data = {"name": manifest["name"], "recipe": manifest["recipe"], "targets": shown, "failures": {}}
        write_file(junit, junit_xml(data))
    for report in reports.values():
        if not report.passed:
            raise proof_error(report)
