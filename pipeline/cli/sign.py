"""``kobako sign``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import json_option, print_json

if TYPE_CHECKING:
    from ..sign import SigningKey
    from ..verify import Signer

PASSWORD_VARIABLE = "KOBAKO_KEY_PASSWORD"
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("sign", epilog="Example: kobako sign --new-key key.pem; kobako sign dist/my-package --key key.pem")
@click.argument("package", type=click.Path(path_type=Path), required=False)
@click.option("--key", type=FILE, help="Private key, PEM, on P-256, P-384 or P-521.")
@click.option("--certificate", type=FILE, help="Certificate of the key, PEM: verified through its authority.")
@click.option("--chain", type=FILE, multiple=True, help="Certificates between that and the authority; repeatable.")
@click.option("--keyless", is_flag=True, help="In CI: sign with the job's identity through Sigstore.")
@click.option("--new-key", type=FILE, help="Make a key pair here (and with .pub) instead of signing.")
@json_option
def command(
    package: Path | None,
    key: Path | None,
    certificate: Path | None,
    chain: tuple[Path, ...],
    keyless: bool,
    new_key: Path | None,
    as_json: bool,
) -> None:
    """Sign PACKAGE: write model.sig, which vouches for every file, in the OpenSSF model-signing format.

    Of a set of packages it vouches for kobako-set.json, whose digests vouch for the members.

    The package is checked against its manifest first. A password of the key is read from KOBAKO_KEY_PASSWORD. Anybody
    can verify with kobako, or with: model_signing verify key PACKAGE --signature PACKAGE/model.sig --public_key key.pub
    """
    from ..errors import UsageError

    given = os.environ.get(PASSWORD_VARIABLE)
    password = given.encode() if given else None
    if sum(1 for chosen in (key, keyless, new_key) if chosen) != 1 or (package is None) == (new_key is None):
        raise UsageError("give a package and --key, or a package and --keyless, or --new-key alone.", "See --help.")
    if (certificate or chain) and not (key and certificate):
        raise UsageError("--certificate goes with --key, and --chain with both.", "See --help.")
    if new_key:
        _make_key(new_key, password, as_json)
        return
    assert package is not None
    from ..sets.table import is_set
    from ..sign import load_key, sign, sign_in_ci

    signing_key = load_key(key, password, certificate, chain) if key else None
    if is_set(package):
        _sign_set(package, signing_key, as_json)
        return
    done = sign(package, signing_key) if signing_key else sign_in_ci(package)
    if as_json:
        print_json({"package": str(package), "files": len(done.files)} | _signer(done.signer))
    else:
        click.echo(f"{package / 'model.sig'} vouches for {len(done.files)} files{_by(done.signer)}")


def _sign_set(directory: Path, signing_key: SigningKey | None, as_json: bool) -> None:
    from ..sets.check import sign_set, sign_set_in_ci

    done = sign_set(directory, signing_key) if signing_key else sign_set_in_ci(directory)
    names = [member.name for member in done.package_set.members]
    if as_json:
        print_json({"package": str(directory), "members": names} | _signer(done.signer))
    else:
        by = _by(done.signer)
        click.echo(f"{directory / 'model.sig'} vouches for the set and its members {', '.join(names)}{by}")


def _signer(signer: Signer | None) -> dict[str, str]:
    """What verifying needs to be told: the key by its fingerprint, or who signed without one."""
    if signer is None:
        return {"fingerprint": ""}
    if signer.issuer:
        return {"fingerprint": "", "identity": signer.name, "issuer": signer.issuer}
    return {"fingerprint": signer.fingerprint}


def _by(signer: Signer | None) -> str:
    if signer is None:
        return ""
    if signer.issuer:
        return f"; verify with --identity {signer.name} --issuer {signer.issuer}"
    return f", key {signer.fingerprint}"


def _make_key(path: Path, password: bytes | None, as_json: bool) -> None:
    from ..sign import write_new_key

    public, fingerprint = write_new_key(path, password)
    if as_json:
        print_json({"key": str(path), "public": str(public), "fingerprint": fingerprint})
        return
    click.echo(f"{path}: the private key{'' if password else ', not encrypted'}; keep it secret, keep a copy.")
    click.echo(f"{public}: the public key, for those who verify; fingerprint {fingerprint}")
    if not password:
        click.echo(f"Set {PASSWORD_VARIABLE} to make one that is encrypted.", err=True)
