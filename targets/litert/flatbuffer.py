"""Reading and writing .tflite files: buffers are loaded when they are written, and aligned.

The schema classes of ai-edge-litert hold everything but the weights' bytes; those pass through one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

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
    load: Callable[[], Bytes]
    offset: int = 0

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the name the schema calls
        """Write into `builder`: the bytes themselves, or a pointer behind the flatbuffer when `offset` is set."""
        s = schema()
        data = _aligned_vector(builder, self.load()) if self.size_bytes and not self.offset else None
        s.BufferStart(builder)
        if data is not None:
            s.BufferAddData(builder, data)
        elif self.offset:
            s.BufferAddOffset(builder, self.offset)
            s.BufferAddSize(builder, self.size_bytes)
        return int(s.BufferEnd(builder))


def _aligned_vector(builder: Any, data: Bytes) -> int:
    builder.StartVector(1, len(data), ALIGNMENT_BYTES)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data.data
    return int(builder.EndVector())


def constant(values: npt.NDArray[Any]) -> LazyBuffer:
    """A buffer of values already in memory."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return LazyBuffer(data.nbytes, lambda: data)


def load_model(data: bytes) -> Any:
    """The schema's ModelT of a flatbuffer."""
    s = schema()
    return s.ModelT.InitFromObj(s.Model.GetRootAs(data, 0))


def sharing_builder(size_hint: int) -> Any:
    """A flatbuffers Builder that stores equal vectors once.

    A scale and an int64 zero point for each row, in prefill's graph and again in decode's, are 24 bytes a row.
    """
    import flatbuffers

    class SharingBuilder(flatbuffers.Builder):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.written: dict[tuple[str, int, bytes], int] = {}

        def CreateNumpyVector(self, x: npt.NDArray[Any]) -> int:  # noqa: N802 - the name the schema calls
            key = str(x.dtype), len(x), hashlib.sha256(x.tobytes()).digest()
            if key not in self.written:
                self.written[key] = int(super().CreateNumpyVector(x))
            return self.written[key]

    return SharingBuilder(size_hint)


def _pack(model: Any, size_hint: int) -> memoryview:
    builder = sharing_builder(size_hint)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


def write_model(model: Any, path: Path, inline_limit_bytes: int = INLINE_LIMIT_BYTES) -> None:
    """Write a ModelT whose buffers are all LazyBuffer."""
    total = sum(buffer.size_bytes for buffer in model.buffers)
    with path.open("wb") as file:
        if total <= inline_limit_bytes:
            file.write(_pack(model, total + (1 << 20)))
        else:
            _write_with_appended_buffers(model, file)


def _write_with_appended_buffers(model: Any, file: BinaryIO) -> None:
    filled: Sequence[LazyBuffer] = [buffer for buffer in model.buffers if buffer.size_bytes]
    for buffer in filled:
        buffer.offset = 1  # any value but the default, which the builder would leave out
    position = _aligned(len(_pack(model, 1 << 20)))
    for buffer in filled:
        buffer.offset = position
        position = _aligned(position + buffer.size_bytes)
    file.write(_pack(model, 1 << 20))
    for buffer in filled:
        file.seek(buffer.offset)
        file.write(buffer.load().data)
    file.truncate(position)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
