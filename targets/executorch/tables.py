"""Tables that host operators look up are emitted as two rows, and put back when the file is written.

ExecuTorch's emitter makes bytes of every constant of the host program. How many rows a table has changes nothing in the
program but the size it states, so the emitter sees a stand-in, and the rows go from file to file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from .graph import aten

ROWS = 2


def looks_up(user: fx.Node, table: fx.Node) -> bool:
    """Whether this operator takes rows of a table, and nothing else of it."""
    args: Any = user.args
    if str(user.target).startswith("quantized_decomposed.embedding_byte"):
        return table in args[:2] and table not in args[2:]
    if user.target == aten.embedding.default:
        return args[0] is table and args[1] is not table
    return bool(user.target == aten.index_select.default and args[:2] == (table, 0) and args[2] is not table)


def is_table(node: fx.Node) -> bool:
    """Whether a constant is only ever looked up."""
    return bool(node.users) and all(looks_up(user, node) for user in node.users)


def stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """Rows that no other table has, in the table's form; the same table gives the same ones."""
    rows = torch.empty((ROWS, *tensor.shape[1:]), dtype=tensor.dtype)
    told = hashlib.sha256(f"{tensor.data_ptr()} {tensor.shape} {tensor.dtype}".encode()).digest()
    filling = (told * (rows.nbytes // len(told) + 1))[: rows.nbytes]
    rows.view(-1).view(torch.uint8).copy_(torch.frombuffer(bytearray(filling), dtype=torch.uint8))
    return rows


def key_of(rows: torch.Tensor) -> bytes:
    """How a stand-in is found again in what was emitted."""
    return rows.view(-1).view(torch.uint8).numpy().tobytes()


def put_back(program: Any, tables: Mapping[bytes, torch.Tensor]) -> None:
    """Give an emitted program the tables themselves; `tables` by the key of their stand-ins."""
    from .constants import constant

    for value in (value.val for plan in program.execution_plan for value in plan.values):
        index = getattr(value, "data_buffer_idx", 0)
        held = program.constant_buffer[index].storage if index and value.allocation_info is None else b""
        if held in tables:
            value.sizes = [len(tables[held]), *value.sizes[1:]]
    for buffer in program.constant_buffer:
        if buffer.storage in tables:
            buffer.storage = constant(tables[buffer.storage])
