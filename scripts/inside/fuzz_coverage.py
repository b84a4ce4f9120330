"""As scripts/fuzz, but guided by the code that each case reaches (atheris). For subjects whose cases are bytes.

Usage: scripts/fuzz-coverage [--cases N] [SUBJECT …]

A case must end in being accepted or in one of kobako's own errors. Prints a table; a failing case is left in a file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / "tests" / "unit"), str(ROOT / "scripts" / "editable")]
BYTES = (
    "manifests",
    "signatures",
    "statements",
    "trust files",
    "safetensors",
    "GGUF files",
    "archives",
    "embedding tables",
    "lists of models",
)


def child(name: str, cases: int, work: Path) -> None:
    """Fuzz one subject until `cases` or a failure; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["kobako"]):
        from hostile import subjects

        subject = next(one for one in subjects(work / "subjects") if one.name == name)  # imports what it fuzzes
    corpus = work / "corpus"
    corpus.mkdir()
    for index, seed in enumerate(subject.seeds):
        (corpus / str(index)).write_bytes(seed)
    options = [f"-runs={cases}", "-max_len=65536", "-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={work}/"]
    atheris.Setup([sys.argv[0], *options, "-seed=1", str(corpus)], lambda data: subject.check(data) and None)
    atheris.Fuzz()


def main() -> int:
    """Fuzz what was asked for, a process each; 1 after any failure."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz-coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"words of: {', '.join(BYTES)}")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    sys.path[:0] = PATHS
    if asked.child:
        work = Path(asked.child[1])
        (work / "subjects").mkdir()
        child(asked.child[0], asked.cases, work)
        return 0
    failed = False
    print("| subject | cases | branches reached | seconds | failures |\n|---|---|---|---|---|", flush=True)
    for name in BYTES:
        if asked.subjects and not any(word.casefold() in name.casefold() for word in asked.subjects):
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--cases", str(asked.cases), "--child", name, folder]
            started = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            runs = re.findall(r"^#(\d+)\s", done.stderr, re.MULTILINE) or ["0"]
            reached = re.findall(r"\bcov: (\d+)", done.stderr) or ["?"]
            bad = done.returncode != 0
            failed = failed or bad
            print(
                f"| {name} | {int(runs[-1]):,} | {reached[-1]} | {time.monotonic() - started:,.0f} | "
                f"{'FAILED' if bad else 'none'} |",
                flush=True,
            )
            if bad:
                print(done.stderr[-6000:], file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
