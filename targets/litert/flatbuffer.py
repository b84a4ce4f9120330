"""Reading and writing .tflite files: buffers go from file to file while the model is written, and are aligned.

The schema classes of ai-edge-litert hold everything but the weights' bytes; of those a megabyte is in memory.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .stored import Pieces

IDENTIFIER = b"TFL3"
ALIGNMENT_BYTES = 16
INLINE_LIMIT_BYTES = 1_500_000_000
"""Above this the weights follow the flatbuffer instead of lying inside it: its offsets end at 2 GB."""


def schema() -> Any:
    """The generated schema module."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def text(value: Any) -> str:
    """A flatbuffer string."""
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass
class LazyBuffer:
    """A buffer whose bytes are produced while the file is written. Stands in for the schema's BufferT."""

    size_bytes: int
    pieces: Pieces
    offset: int = 0

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the name the schema calls
        """Leave room for the bytes in `builder`, or point behind the flatbuffer when `offset` is set."""
        s = schema()
        data = builder.room_for(self) if self.size_bytes and not self.offset else None
        s.BufferStart(builder)
        if data is not None:
            s.BufferAddData(builder, data)
        elif self.offset:
            s.BufferAddOffset(builder, self.offset)
            s.BufferAddSize(builder, self.size_bytes)
        return int(s.BufferEnd(builder))


def constant(values: npt.NDArray[Any]) -> LazyBuffer:
    """A buffer of values already in memory."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return LazyBuffer(data.nbytes, lambda: (data,))


def load_model(data: bytes) -> Any:
    """The schema's ModelT of a flatbuffer."""
    s = schema()
    return s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))


def model_builder() -> Any:
    """A flatbuffers Builder without the weights, which stores equal vectors once.

    Its bytes are as many as a flatbuffer may have, of which those that are never written take no memory: the room of
    the weights. A scale and an int64 zero point for each row, in prefill's graph and again in decode's, would be 24
    bytes a row.
    """
    import flatbuffers

    class ModelBuilder(flatbuffers.Builder):
        def __init__(self) -> None:
            super().__init__(0)
            self.Bytes = mmap.mmap(-1, self.MAX_BUFFER_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                self.Bytes.madvise(mmap.MADV_NOHUGEPAGE)
            self.head = self.MAX_BUFFER_SIZE
            self.rooms: list[tuple[int, LazyBuffer]] = []  # (where in Bytes it begins, whose it is), from the end on
            self.written: dict[tuple[str, int, bytes], int] = {}

        def room_for(self, buffer: LazyBuffer) -> int:
            self.StartVector(1, buffer.size_bytes, ALIGNMENT_BYTES)
            self.head -= buffer.size_bytes
            self.rooms.append((self.head, buffer))
            return int(self.EndVector())

        def CreateNumpyVector(self, x: npt.NDArray[Any]) -> int:  # noqa: N802 - the name the schema calls
            key = str(x.dtype), len(x), hashlib.sha256(x.tobytes()).digest()
            if key not in self.written:
                self.written[key] = int(super().CreateNumpyVector(x))
            return self.written[key]

    return ModelBuilder()


def _packed(model: Any) -> Any:
    builder = model_builder()
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return builder


def _write_packed(builder: Any, file: BinaryIO) -> None:
    """The flatbuffer, each buffer's bytes in the room that was left for it."""
    with memoryview(builder.Bytes) as view:
        position = builder.Head()
        for begin, buffer in reversed(builder.rooms):
            file.write(view[position:begin])
            _write_buffer(buffer, file)
            position = begin + buffer.size_bytes
        file.write(view[position:])


def _write_buffer(buffer: LazyBuffer, file: BinaryIO) -> None:
    for piece in buffer.pieces():
        file.write(piece.data)


def write_model(model: Any, path: Path, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> None:
    """Write a ModelT whose buffers are all LazyBuffer."""
    total = sum(buffer.size_bytes for buffer in model.buffers)
    with path.open("wb") as file:
        if total <= inline_limit_bytes:
            _write_packed(_packed(model), file)
        else:
            _write_with_appended_buffers(model, file)


def _write_with_appended_buffers(model: Any, file: BinaryIO) -> None:
    filled: Sequence[LazyBuffer] = [buffer for buffer in model.buffers if buffer.size_bytes]
    for buffer in filled:
        buffer.offset = 1  # any value but the default, which the builder would leave out
    position = _aligned(_packed(model).Offset())
    for buffer in filled:
        buffer.offset = position
        position = _aligned(position + buffer.size_bytes)
    _write_packed(_packed(model), file)
    for buffer in filled:
        file.seek(buffer.offset)
        _write_buffer(buffer, file)
    file.truncate(position)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
