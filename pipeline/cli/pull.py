"""``kobako pull``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option, print_json, quiet_option, target_option, trust_options


@click.command(
    "pull", epilog="Example: kobako pull https://models.example.com/my-package --target litert --key key.pub"
)
@click.argument("source")
@target_option
@click.option(
    "--out", "-o", type=click.Path(path_type=Path), help="Package directory [default: named like the source]."
)
@trust_options
@click.option("--allow-unsigned", is_flag=True, help="Accept a package that nobody known signed, if it is undamaged.")
@click.option("--jobs", "-j", type=click.IntRange(1, 16), default=4, show_default=True, help="Files at a time.")
@click.option("--plain-http", is_flag=True, help="Talk to an OCI registry without encryption (loopback needs no flag).")
@json_option
@quiet_option
def command(
    source: str,
    targets: tuple[str, ...],
    out: Path | None,
    key: Path | None,
    certificate: Path | None,
    trust: Path | None,
    identity: str | None,
    issuer: str | None,
    allow_unsigned: bool,
    jobs: int,
    plain_http: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Pull a package from SOURCE: hf://org/name@rev, oci://host/name:tag, https://host/path, or a directory.

    A set of packages comes with all its members, or not at all.

    Its signature is checked before anything else is read. The package directory then holds the asked targets (all of
    them by default) and no others. An interrupted pull continues; a second one transfers nothing.
    """
    from functools import partial

    from ..codec import to_json
    from ..pull import PullRequest
    from ..registry.roads import open_source
    from ..report.words import human_bytes
    from ..sets.travel import PulledSet, pull_any
    from ..signature.trust import choose_trust
    from .display import observer

    believed = choose_trust(
        key, trust, allow_unsigned=allow_unsigned, certificate=certificate, identity=identity, issuer=issuer
    )
    request = PullRequest(targets=tuple(dict.fromkeys(targets)), trust=believed, out=out, jobs=jobs)
    place = open_source(source, plain_http=plain_http)
    try:
        with observer(quiet) as watching:
            done = pull_any(place, request, watching, partial(open_source, plain_http=plain_http))
    finally:
        place.close()
    if as_json:
        print_json(to_json(done))
        return
    signed = f"signed by {done.signer}" if done.signer else "NOT SIGNED by anybody known"
    how = "was up to date" if done.unchanged else f"pulled: {human_bytes(done.transferred_bytes)} transferred"
    if isinstance(done, PulledSet):
        click.echo(f"{done.directory} {how}, {len(done.members)} packages verified, {signed}")
        return
    click.echo(f"{done.package} {how}, {done.files} files verified, {', '.join(done.targets)}, {signed}")
