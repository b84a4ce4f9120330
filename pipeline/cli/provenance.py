"""``kobako provenance``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import print_json


@click.command("provenance", epilog="Example: kobako provenance dist/my-package --out dist/my-package.provenance.json")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write it here [default: stdout].")
def command(package: Path, out: Path | None) -> None:
    """Say who built PACKAGE, from what and how: a SLSA provenance 1.0 statement (in-toto JSON), unsigned.

    In GitHub Actions it names the workflow, the run and the commit; `actions/attest` signs it. Every file of the
    package is checked against the manifest first.
    """
    from ..errors import OutputError
    from ..provenance import provenance, write_provenance
    from ..signature.trust import Trust
    from ..verify import verify

    done = verify(package, Trust(unsigned="allow"))
    if out is None:
        print_json(provenance(done))
        return
    if out.absolute().resolve().is_relative_to(package.resolve()):
        raise OutputError(f"{out} lies inside the package, whose bytes are signed.", "Put it beside the package.")
    write_provenance(done, out)
    click.echo(f"{out} tells where {len(done.files)} files come from")
