"""The matrices of a package, read back from its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from kobako.pipeline.embeddings import open_table
from kobako.pipeline.errors import BadArtifact
from kobako.pipeline.protocols import StoredWeight

from .mil.program import Function, Literal, Operation, Program, read_package
from .selfdescription import is_seq2seq, read_weights


def stored_weights(package: Path, table: Path | None = None) -> Iterator[StoredWeight]:
    """Codes and scales of every matrix under its Hugging Face name; the rows of the `table` beside the package.

    Raises BadArtifact when a matrix is missing, or when the functions that use it do not use the same bytes. Encoder
    and decoder of one model are functions with matrices of their own; otherwise every function uses every matrix.
    """
    program = read_package(package)
    makers = [{name: op for op in one.operations for name, _ in op.outputs} for one in program.functions.values()]
    apart = is_seq2seq(program.metadata)
    for value, parameter in read_weights(program.metadata).items():
        using = [one[value] for one in makers if value in one]
        if not using or (len(using) < len(makers) and not apart):
            raise BadArtifact(f"{parameter} is not in every function of the package.", "Export the model again.")
        if len({tuple(sorted(places(one).items())) for one in using}) > 1:
            raise BadArtifact(f"the functions of the package use different bytes for {parameter}.", "Export again.")
        yield stored(program, using[0], parameter)
    if table is not None:
        rows = open_table(table)
        yield StoredWeight(name=rows.layout.parameter, codes=rows.data, scales=None)


def places(operation: Operation) -> dict[str, int]:
    """Offsets of an operation's constants in the weight file, by input or attribute name."""
    literals = {key: many[0] for key, many in operation.inputs.items()} | dict(operation.attributes)
    return {key: one.offset for key, one in literals.items() if isinstance(one, Literal) and one.offset is not None}


def stored(program: Program, operation: Operation, parameter: str) -> StoredWeight:
    """One matrix. Raises BadArtifact when it is made by something that is not a stored matrix."""
    if operation.type == "const":
        return StoredWeight(name=parameter, codes=program.array(operation.attributes["val"]), scales=None)
    parts = {key: many[0] for key, many in operation.inputs.items()}
    data, scale = parts.get("data"), parts.get("scale")
    known = operation.type == "constexpr_blockwise_shift_scale"
    if not known or not isinstance(data, Literal) or not isinstance(scale, Literal):
        raise BadArtifact(f"{parameter} is made by {operation.type}, not by blockwise dequantization.", "Export again.")
    offset = parts.get("offset")
    return StoredWeight(
        name=parameter, codes=program.array(data), scales=program.array(scale).astype(np.float32),
        offsets=-program.array(offset).astype(np.float16) if isinstance(offset, Literal) else None,
    )  # fmt: skip


def weight_references(function: Function) -> Iterator[Literal]:
    """Every constant of a function that lies in the weight file."""
    for operation in function.operations:
        literals = [one for many in operation.inputs.values() for one in many if isinstance(one, Literal)]
        yield from (one for one in [*literals, *operation.attributes.values()] if one.offset is not None)
