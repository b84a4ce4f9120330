"""``kobako doctor``."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

import click

from .options import cache_option, json_option, open_cache, print_json


@click.command("doctor", epilog="Example: kobako doctor --json")
@cache_option
@json_option
def command(cache_dir: Path | None, as_json: bool) -> None:
    """Check this machine: cores, memory, disk, cache, and the vendor packages of every target.

    Exits with 14 when a target's packages are missing.
    """
    facts = _facts(open_cache(cache_dir).root)
    if as_json:
        print_json(facts)
    else:
        _print(facts)
    missing = [name for name, target in facts["targets"].items() if target["missing"]]
    if missing:
        from ..errors import MissingDependency

        raise MissingDependency(f"not installed: targets {', '.join(missing)}.", "pip install 'kobako[all]'")


def _facts(root: Path) -> dict[str, Any]:
    from kobako import targets

    from ..isolation import calls_can_be_denied, network_can_be_denied
    from ..stagecode import vendor_versions
    from ..system import Machine
    from ..version import __version__

    machine = Machine.here()
    home = next(place for place in [root, *root.parents] if place.exists())
    return {
        "kobako": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": machine.cores,
        "available_memory_bytes": machine.available_bytes,
        "cache": str(root),
        "free_disk_bytes": shutil.disk_usage(home).free,
        "network_denied_to_workers": network_can_be_denied(),
        "calls_denied_to_templates": calls_can_be_denied(),
        "targets": {
            name: {
                "missing": targets.missing_modules(targets.get(name)),
                "versions": dict(vendor_versions(targets.get(name))),
                "recipes": list(targets.get(name).recipes),
            }
            for name in targets.names()
        },
    }


def _print(facts: dict[str, Any]) -> None:
    from ..report.words import human_bytes

    click.echo(f"kobako {facts['kobako']}, Python {facts['python']}, {facts['platform']}")
    click.echo(f"{facts['cores']} cores, {human_bytes(facts['available_memory_bytes'])} of memory available")
    click.echo(f"cache {facts['cache']}, {human_bytes(facts['free_disk_bytes'])} free")
    denied = "is denied" if facts["network_denied_to_workers"] else "CANNOT be denied here (see SECURITY.md)"
    click.echo(f"network {denied} to the processes that read models and convert them")
    denied = "are denied" if facts["calls_denied_to_templates"] else "CANNOT be denied here (see SECURITY.md)"
    click.echo(f"system calls other than computing's {denied} to chat templates")
    for name, target in facts["targets"].items():
        versions = ", ".join(f"{package} {version}" for package, version in target["versions"].items())
        state = f"missing {', '.join(target['missing'])}" if target["missing"] else "ready"
        click.echo(f"{name}: {state} ({versions}); recipes {', '.join(target['recipes'])}")
