"""The command line of ``scripts/bench/kvcache``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(prog="kvcache", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    alone = commands.add_parser("attention", help="one layer's attention in three ways [SmolLM2-135M's shape]")
    for name, value in (("slots", 1024), ("queries", 9), ("heads", 3), ("depth", 64)):
        alone.add_argument(f"--{name}", type=int, default=value)
    whole = commands.add_parser("packages", help="packages with an ExecuTorch part, at full context, in turns")
    whole.add_argument("package", type=Path, nargs="+")
    whole.add_argument("--rounds", type=int, default=3)
    commands.add_parser("one", help="one package in this process, as JSON").add_argument("package", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "attention":
        from .attention import table

        print("\n".join(table(arguments.slots, arguments.queries, arguments.heads, arguments.depth)))
    elif arguments.command == "packages":
        from .packages import table as packages_table

        print("\n".join(packages_table(arguments.package, arguments.rounds)))
    else:
        from .packages import measured

        print(json.dumps(measured(arguments.package)))


if __name__ == "__main__":
    main()
