"""``kobako verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import json_option, print_json, target_option, trust_options

if TYPE_CHECKING:
    from ..signature.trust import Trust
    from ..verify import Verified


@click.command("verify", epilog="Example: kobako verify dist/my-package --key key.pub")
@click.argument("package", type=click.Path(path_type=Path))
@trust_options
@click.option("--allow-unsigned", is_flag=True, help="Accept a package that nobody known signed, if it is undamaged.")
@target_option
@json_option
def command(
    package: Path,
    key: Path | None,
    certificate: Path | None,
    trust: Path | None,
    identity: str | None,
    issuer: str | None,
    allow_unsigned: bool,
    targets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check that PACKAGE is what somebody you believe has signed: the signature first, then every file.

    A set of packages is checked with all its members.

    A package pulled for some targets verifies too: whole folders of other targets may be absent. With --target that
    target must be there. Exits with 20 when nobody believed has signed it, with 7 when a file was changed.
    """
    from ..sets.table import is_set
    from ..signature.trust import choose_trust
    from ..verify import verify

    believed = choose_trust(
        key, trust, allow_unsigned=allow_unsigned, certificate=certificate, identity=identity, issuer=issuer
    )
    if is_set(package):
        _verify_set(package, believed, targets, as_json=as_json)
    else:
        _show(verify(package, believed, targets), as_json)


def _verify_set(directory: Path, trust: Trust, targets: tuple[str, ...], *, as_json: bool) -> None:
    from ..codec import to_json
    from ..sets.check import verify_set

    done = verify_set(directory, trust, targets)
    signer = done.signer
    made = done.package_set
    if as_json:
        members = {name: list(one.targets) for name, one in done.members.items()}
        shown = {"package": str(done.directory), "name": made.name, "members": members, "absent": list(done.absent)}
        print_json(shown | {"signer": to_json(signer) if signer else None})
        return
    by = f"signed by {signer.name} {signer.fingerprint}".strip() if signer else "NOT SIGNED by anybody known"
    click.echo(f"{made.name}: a set of {len(made.members)} packages as promised, {by}")
    for name, one in done.members.items():
        tasks = ", ".join(str(route) for route in made.routes if route.member == name)
        click.echo(f"  {name}: {len(one.files)} files, {', '.join(one.targets)}; for {tasks or 'no task'}")
    for name in done.absent:
        click.echo(f"  {name}: not pulled")


def _show(done: Verified, as_json: bool) -> None:
    from ..codec import to_json

    signer = done.signer
    if as_json:
        shown = {"package": str(done.package), "name": done.manifest["name"], "targets": list(done.targets)}
        print_json(shown | {"files": dict(done.files), "signer": to_json(signer) if signer else None})
        return
    by = f"signed by {signer.name} {signer.fingerprint}".strip() if signer else "NOT SIGNED by anybody known"
    click.echo(f"{done.manifest['name']}: {len(done.files)} files as promised, {by}")
    absent = [name for name in done.manifest["targets"] if name not in done.targets]
    click.echo(f"targets here: {', '.join(done.targets)}" + (f"; not pulled: {', '.join(absent)}" if absent else ""))
