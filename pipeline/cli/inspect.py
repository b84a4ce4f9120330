"""``kobako inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..names import printable
from .options import json_option, print_json


@click.command("inspect", epilog="Example: kobako inspect dist/smollm2-135m-instruct-int8/litert/model.litertlm")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def command(path: Path, as_json: bool) -> None:
    """Show what is inside PATH: a package, a .pte, a .mlpackage, a .tflite, a .litertlm or an embedding table."""
    found = _inspect(path)
    if as_json:
        print_json(found)
    else:
        _print(found, 0)


def _inspect(path: Path) -> Mapping[str, Any]:
    from kobako import targets

    from ..errors import NotFound, UsageError
    from ..manifest import MANIFEST_FILE, read_manifest
    from ..reprove import inspect_artifact

    if not path.exists():
        raise NotFound(f"{path} does not exist.")
    if (path / MANIFEST_FILE).is_file():
        return read_manifest(path)
    if path.suffix == ".safetensors":
        return _table(path)
    for name in targets.names():
        if path.name.endswith(targets.get(name).suffixes):
            return inspect_artifact(name, path)
    known = [".safetensors", *(suffix for name in targets.names() for suffix in targets.get(name).suffixes)]
    raise UsageError(f"{path} is nothing that can be inspected.", f"A package, or a file ending in {', '.join(known)}.")


def _table(path: Path) -> Mapping[str, Any]:
    """The layout of an embedding table. Raises BadArtifact and IntegrityError."""
    from ..embeddings import FORMAT, open_table

    table = open_table(path, check_digest=True)
    sizes = {"row_bytes": table.layout.row_bytes, "data_bytes": table.layout.data_bytes}
    return {"format": FORMAT, **vars(table.layout), **sizes, "data_at_byte": table.begin, "sha256": table.digest}


def _print(value: Any, depth: int) -> None:
    """Nested JSON as an indented list; long strings are cut."""
    pad = "  " * depth
    items = value.items() if isinstance(value, Mapping) else [("-", item) for item in value]
    for key, item in items:
        if isinstance(item, Mapping | list) and item:
            click.echo(f"{pad}{click.style(printable(str(key)), bold=True)}")
            _print(item, depth + 1)
        else:
            text = printable(str(item))
            click.echo(f"{pad}{printable(str(key))}: {text if len(text) <= 120 else text[:117] + '…'}")
