"""What is inside an ``.mlpackage``, as JSON values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kobako.pipeline.errors import BadArtifact

from .mil.program import Function, Literal, Program, TensorType, read_package
from .readback import weight_references
from .selfdescription import PREFIX


def inspect(path: Path) -> Mapping[str, Any]:
    """Functions, states, operations, weight bytes by type, metadata. Raises BadArtifact."""
    program = read_checked(path)
    described = {key: decoded(value) for key, value in program.metadata.items() if key != PREFIX + "weights"}
    return {
        "format": "mlpackage",
        "specification_version": program.specification_version,
        "default_function": program.default_function,
        "size_bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "functions": {name: describe(function) for name, function in program.functions.items()},
        "weight_bytes": weight_bytes(program),
        "metadata": described,
    }


def read_checked(path: Path) -> Program:
    """Read a package and follow every reference into its weight file. Raises BadArtifact where one leads nowhere."""
    program = read_package(path)
    for function in program.functions.values():
        for literal in weight_references(function):
            program.array(literal)
    return program


def describe(function: Function) -> dict[str, Any]:
    """One function's interface and operations."""
    types = function.types()
    if missing := [name for name in function.outputs if name not in types]:
        raise BadArtifact(f"function {function.name} returns {missing[0]!r}, which nothing makes.", "Export again.")
    return {
        "inputs": {name: typed(kind) for name, kind in function.inputs.items()},
        "outputs": {name: typed(types[name]) for name in function.outputs},
        "states": {name: typed(kind) for name, kind in function.states.items()},
        "operations": dict(Counter(op.type for op in function.operations if op.type != "const").most_common()),
    }


def typed(kind: TensorType) -> dict[str, Any]:
    """A type as JSON."""
    return {"dtype": kind.dtype, "shape": list(kind.shape)}


def weight_bytes(program: Program) -> dict[str, int]:
    """Bytes of the weight file by element type; what several functions share counts once."""
    found: dict[int, Literal] = {}
    for function in program.functions.values():
        found.update({one.offset: one for one in weight_references(function) if one.offset is not None})
    sizes: Counter[str] = Counter()
    for offset in found:
        if program.blob is not None:
            entry = program.blob.entry(offset)
            sizes[entry.dtype] += entry.size
    return dict(sorted(sizes.items()))


def decoded(text: str) -> Any:
    """A metadata string as the JSON value it holds, or as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text
