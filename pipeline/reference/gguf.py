"""GGUF files: header, configuration and tensors, under Hugging Face names.

The header is read here and not by ``gguf.GGUFReader``, which makes one memory map per string: 3.4 s for SmolLM2's
49,152 tokens against 0.05 s, and every process that opens the weights pays it. Dequantization is the gguf library's.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contracts import FloatArray
from ..errors import IntegrityError, KobakoError, UnsupportedModel

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_DIMENSIONS = 4
CHUNK_VALUES = 1 << 18
STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """Where a tensor lies. `shape` is NumPy's order: rows first, the reverse of the file's."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Gguf:
    """A GGUF file's header: metadata as Python values, and a table of tensors."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        """``general.architecture``; empty when the file does not say."""
        return str(self.metadata.get("general.architecture", ""))

    def key(self, name: str, default: Any = None) -> Any:
        """Metadata under the architecture's own prefix, such as ``llama.block_count``."""
        return self.metadata.get(f"{self.architecture}.{name}", default)


class Cursor:
    """A place in a header that is being read. Raises struct.error or ValueError beyond the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def scalar(self, form: str) -> Any:
        """One number."""
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def string(self) -> str:
        """A length and that many bytes of UTF-8."""
        length = self.scalar("<Q")
        end = self.at + length
        if end > len(self.data):
            raise ValueError(f"a string of {length:,} bytes does not fit")
        text = self.data[self.at : end].decode("utf-8")
        self.at = end
        return text

    def value(self, kind: int) -> Any:
        """A metadata value of a type. Arrays of numbers become lists too."""
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        raise ValueError(f"metadata type {kind} is not known")

    def array(self) -> list[Any]:
        """An element type, a count, and the elements."""
        kind, count = self.scalar("<I"), self.scalar("<Q")
        if kind in SCALARS:
            form = f"<{count}{SCALARS[kind][1]}"
            if self.at + struct.calcsize(form) > len(self.data):
                raise ValueError(f"an array of {count:,} numbers does not fit")
            values = struct.unpack_from(form, self.data, self.at)
            self.at += struct.calcsize(form)
            return list(values)
        if kind != STRING or count * 8 > len(self.data):
            raise ValueError(f"an array of {count:,} elements of type {kind} cannot be read")
        return [self.string() for _ in range(count)]


def read_header(path: Path) -> Gguf:
    """Read a GGUF file's header; no tensor is touched.

    Raises IntegrityError when the file is damaged or no GGUF, UnsupportedModel for tensor types that gguf lacks.
    """
    if path.stat().st_size < 24:
        raise IntegrityError(f"{path.name} has {path.stat().st_size} bytes: it is no GGUF file.", "Fetch it again.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return parse_header(path, Cursor(data))
        except (struct.error, ValueError, OverflowError, MemoryError) as error:
            raise IntegrityError(f"{path.name} is no GGUF file, or damaged: {error}.", "Fetch it again.") from error


def parse_header(path: Path, cursor: Cursor) -> Gguf:
    """The header at a cursor. Raises ValueError or struct.error when it lies."""
    if cursor.data[:4] != MAGIC:
        raise ValueError("it does not begin with GGUF")
    cursor.at = 4
    version = cursor.scalar("<I")
    if version not in VERSIONS:
        raise ValueError(f"version {version} is not one of {VERSIONS} (little-endian)")
    tensor_count, key_count = cursor.scalar("<Q"), cursor.scalar("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        name = cursor.string()
        metadata[name] = cursor.value(cursor.scalar("<I"))
    entries = [tensor_entry(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment {alignment} is no power of two")
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: located(name, shape, kind, start + offset) for name, shape, kind, offset in entries}
    end = max((tensor.offset + tensor.size_bytes for tensor in tensors.values()), default=0)
    if end > len(cursor.data):
        raise ValueError(f"the tensors need {end:,} bytes, the file has {len(cursor.data):,}")
    return Gguf(path=path, metadata=metadata, tensors=tensors)


def tensor_entry(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape (rows first), type and offset of one tensor."""
    name = cursor.string()
    dimensions = cursor.scalar("<I")
    if dimensions > MAX_DIMENSIONS:
        raise ValueError(f"{name} has {dimensions} dimensions")
    shape = tuple(reversed([cursor.scalar("<Q") for _ in range(dimensions)]))
    return name, shape, cursor.scalar("<I"), cursor.scalar("<Q")


def located(name: str, shape: tuple[int, ...], kind: int, offset: int) -> TensorInfo:
    """A tensor's table entry with its size in bytes.

    Raises UnsupportedModel for an unknown type, ValueError for a shape that its blocks cannot fill.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise UnsupportedModel(f"{name} has GGML type {kind}, which gguf does not know.", "Update gguf.") from error
    if not shape or 0 in shape or shape[-1] % block:
        raise ValueError(f"{name} of shape {list(shape)} cannot be made of blocks of {block}")
    size_bytes = math.prod(shape) * block_bytes // block
    return TensorInfo(name=name, shape=shape, ggml_type=kind, offset=offset, size_bytes=size_bytes)


@contextmanager
def consistent(name: str) -> Iterator[None]:
    """What goes wrong inside is the file's fault: fields of another type than their name says, a vocabulary that lacks
    what its merges need. The tokenizers library raises plain Exception there, and its panics are not even that.

    Raises IntegrityError.
    """
    try:
        yield
    except (KobakoError, OSError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise IntegrityError(
            f"the metadata of {name} contradict themselves: {type(error).__name__}: {said}.", "Fetch it again."
        ) from error


@contextmanager
def mapped(path: Path) -> Iterator[np.memmap[Any, np.dtype[np.uint8]]]:
    """The whole file as bytes, mapped; pages are read when they are touched."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    try:
        yield data
    finally:
        del data


def dequantized(data: np.memmap[Any, np.dtype[np.uint8]], tensor: TensorInfo) -> FloatArray:
    """One tensor in float32, a few rows at a time and each time as one long row, of which the library makes several
    copies; of short rows it would take sixteen at once, in as many more calls.

    Raises UnsupportedModel when gguf cannot dequantize its type.
    """
    from gguf import GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(tensor.ggml_type)
    raw = data[tensor.offset : tensor.offset + tensor.size_bytes]
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        values = raw.view(np.float32 if kind == GGMLQuantizationType.F32 else np.float16)
        return np.array(values, dtype=np.float32).reshape(tensor.shape)
    columns = tensor.shape[-1]
    rows = raw.reshape(math.prod(tensor.shape[:-1]), -1)
    result = np.empty((len(rows), columns), dtype=np.float32)
    step = max(1, CHUNK_VALUES // columns)
    try:
        for row in range(0, len(rows), step):
            part = rows[row : row + step]
            result[row : row + step] = dequantize(part.reshape(1, -1), kind).reshape(len(part), columns)
    except NotImplementedError as error:
        raise UnsupportedModel(
            f"{tensor.name} is {kind.name}, which gguf cannot dequantize.", "Update gguf."
        ) from error
    return result.reshape(tensor.shape)
