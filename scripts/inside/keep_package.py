"""Keep tiny signed packages of this version under tests/fixtures/packages/VERSION/, for later versions to verify.

Usage: scripts/keep-package [NAME]      NAME instead of the version, when the manifest grew within one

Run once for each release. The private key is thrown away: nobody can sign for it again, so a kept package that
changes is noticed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write, sign, keep."""
    sys.path[:0] = [str(ROOT / "tests" / "unit"), str(ROOT / "scripts" / "editable")]
    from kobako.pipeline.sign import load_key, sign, write_new_key
    from kobako.pipeline.version import __version__
    from tiny_package import kept_packages

    name = sys.argv[1] if len(sys.argv) > 1 else __version__
    home = ROOT / "tests" / "fixtures" / "packages" / name
    if home.exists():
        print(f"{home} is kept already, and its key is gone: give another NAME.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        public, _ = write_new_key(work / "signer.pem", None)
        for package in kept_packages(work / "work", work / "out"):
            sign(package, load_key(work / "signer.pem", None, None, ()))
            shutil.copytree(package, home / package.name)
        shutil.copyfile(public, home / "signer.pub")
    print(f"{home.relative_to(ROOT)}: {sum(p.stat().st_size for p in home.rglob('*') if p.is_file()):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
