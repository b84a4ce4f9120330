"""Reading a ``.pte`` without running it: program, segments, constants and named data, all bounds checked.

A .pte is a FlatBuffer with an extended header at byte 8 (``eh00``: header length, program size, segment base, segment
bytes), followed by segments. Source: ExecuTorch's ``docs/source/pte-file-format.md`` and ``schema/program.fbs``.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kobako.pipeline.errors import BadArtifact

from .threads import leave_threads_to_executorch

NAMES_KEY = "kobako.names"  # named data: JSON, Hugging Face parameter name → key of its codes
ROWS_ENTRY = "kobako.rows"
"""In the names: a table's parameter, and how many rows and columns its constant has."""
ENCODE, DECODE = "encode", "decode"
"""The methods of an encoder-decoder."""
EMBEDDING_ENTRY = ""  # among the names: what the embedding is called; of two methods with a table each, both names
INSIDE = "model."
"""What is traced holds the model in an attribute of this name."""
HEADER = struct.Struct("<4sIQQQ")
HEADER_AT = 8
HINT = "Build the package again, or pull it again."


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged FlatBuffer makes of the reader into BadArtifact."""
    try:
        yield
    except (struct.error, IndexError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise BadArtifact(f"{path.name} is damaged: {type(error).__name__}: {error}.", HINT) from error
    except (MemoryError, RecursionError) as error:
        raise BadArtifact(f"{path.name} is damaged: impossible sizes inside.", HINT) from error


@dataclass(frozen=True)
class Extent:
    """Where something lies in the file, in bytes."""

    start: int
    size: int


@dataclass
class PteFile:
    """An opened .pte.

    Attributes:
        program: the Program of ``executorch.exir.schema``.
        segments: extents of all segments, in the order of the program.
        named: extents of named data, by key.
    """

    path: Path
    data: mmap.mmap
    program: Any
    segments: list[Extent]
    named: dict[str, Extent] = field(default_factory=dict)

    def bytes_of(self, extent: Extent) -> bytes:
        """A copy of the bytes of an extent."""
        return self.data[extent.start : extent.start + extent.size]

    def method(self, name: str) -> Any:
        """The execution plan called `name`. Raises BadArtifact."""
        for plan in self.program.execution_plan:
            if plan.name == name:
                return plan
        raise BadArtifact(f"{self.path.name} has no method {name!r}.", HINT)

    def method_names(self) -> list[str]:
        """Names of all methods, constant ones included."""
        return [plan.name for plan in self.program.execution_plan]

    def constant(self, tensor: Any, size_bytes: int) -> bytes:
        """The bytes of a constant tensor of the program."""
        table = self.program.constant_segment
        base = self.segments[table.segment_index]
        offset = int(table.offsets[tensor.data_buffer_idx])
        if offset + size_bytes > base.size:
            raise ValueError("a constant lies outside its segment")
        return self.bytes_of(Extent(base.start + offset, size_bytes))

    def delegate_payloads(self, method: str) -> Iterator[tuple[str, bytes]]:
        """Backend id and payload of each delegate of a method."""
        for delegate in self.method(method).delegates:
            yield delegate.id, self.bytes_of(self.segments[delegate.processed.index])

    def constant_method(self, name: str) -> Any:
        """What a constant method returns: a number, a string, a boolean or a list of them."""
        plan = self.method(name)
        values = [plain_value(plan.values[index].val) for index in plan.outputs]
        return values[0] if len(values) == 1 else values


def plain_value(value: Any) -> Any:
    """What a constant method's output is, in Python. Raises ValueError for tensors."""
    for attribute in ("int_val", "double_val", "bool_val", "string_val"):
        if hasattr(value, attribute):
            return getattr(value, attribute)
    raise ValueError(f"a constant method returns a {type(value).__name__}")


@contextmanager
def open_pte(path: Path) -> Iterator[PteFile]:
    """Open and check a .pte. Raises BadArtifact for anything that is not a whole one."""
    if not path.is_file():
        raise BadArtifact(f"{path} does not exist or is no file.", "Give the path of a .pte.")
    with path.open("rb") as file, mapped(file, path) as data, reading(path):
        yield parse(path, data)


@contextmanager
def mapped(file: Any, path: Path) -> Iterator[mmap.mmap]:
    """Map a file for reading; an empty one is BadArtifact."""
    try:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise BadArtifact(f"{path.name} is empty.", HINT) from error
    with data:
        yield data


def parse(path: Path, data: mmap.mmap) -> PteFile:
    """Check the headers and extents of a .pte and read its program. Raises BadArtifact."""
    leave_threads_to_executorch()  # here, because what follows is the first to import torch where a .pte is used
    from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program

    head = data[: HEADER_AT + HEADER.size]
    if len(head) < HEADER_AT + HEADER.size or head[4:6] != b"ET":
        raise BadArtifact(f"{path.name} is not an ExecuTorch program (no 'ET' at byte 4).", HINT)
    magic, length, program_size, base, segment_bytes = HEADER.unpack_from(head, HEADER_AT)
    if magic != b"eh00" or length < HEADER.size:
        raise BadArtifact(f"{path.name} has no extended header: its weights are missing.", HINT)
    if len(data) < base + segment_bytes or program_size > base:
        raise BadArtifact(f"{path.name} is truncated: {len(data):,} of {base + segment_bytes:,} bytes.", HINT)
    program = _flatbuffer_to_program(data[:program_size])
    segments = [Extent(base + int(item.offset), int(item.size)) for item in program.segments]
    if any(extent.start + extent.size > len(data) for extent in segments):
        raise BadArtifact(f"{path.name} has a segment that ends behind the file.", HINT)
    named = {item.key: segments[item.segment_index] for item in program.named_data or ()}
    return PteFile(path, data, program, segments, named)
