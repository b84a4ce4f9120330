"""``kobako publish``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option, print_json, quiet_option, trust_options


@click.command(
    "publish", epilog="Example: kobako publish dist/my-package oci://ghcr.io/me/my-package:1.0 --key key.pub"
)
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("destination")
@trust_options
@click.option("--allow-unsigned", is_flag=True, help="Publish although nobody known has signed it.")
@click.option("--private", is_flag=True, help="On the Hub: make the repository private if it has to be made.")
@click.option("--plain-http", is_flag=True, help="Talk to an OCI registry without encryption (loopback needs no flag).")
@json_option
@quiet_option
def command(
    package: Path,
    destination: str,
    key: Path | None,
    certificate: Path | None,
    trust: Path | None,
    identity: str | None,
    issuer: str | None,
    allow_unsigned: bool,
    private: bool,
    plain_http: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Publish PACKAGE, or a set of packages, to DESTINATION.

    That is hf://org/name@branch, oci://host/name:tag, or a directory for any web server.

    The package is verified first. Only files the destination does not have are sent, and the new version appears when
    all of it is there. Log in as for other tools: `hf auth login` or HF_TOKEN; `docker login` or `podman login`.
    """
    from ..codec import to_json
    from ..publish import PublishRequest
    from ..registry.roads import open_destination
    from ..report.words import human_bytes
    from ..sets.travel import publish_any
    from ..signature.trust import choose_trust
    from .display import observer

    believed = choose_trust(
        key, trust, allow_unsigned=allow_unsigned, certificate=certificate, identity=identity, issuer=issuer
    )
    place = open_destination(destination, plain_http=plain_http, private=private)
    try:
        with observer(quiet) as watching:
            done = publish_any(PublishRequest(package=package, trust=believed), place, watching)
    finally:
        place.close()
    if as_json:
        print_json(to_json(done))
        return
    if done.unchanged:
        click.echo(f"{done.address} was there already; nothing was sent")
        return
    kept = f", {human_bytes(done.kept_bytes)} were there already" if done.kept_bytes else ""
    click.echo(f"{done.address} published: {human_bytes(done.uploaded_bytes)} sent{kept}")
