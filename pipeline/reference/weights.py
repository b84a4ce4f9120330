"""The weights of a Reference, read one tensor at a time from where they lie: NumPy only, no torch.

Whatever the file holds (float32, float16, bfloat16, GGUF's quantized blocks), what comes out is float32 under the
Hugging Face name. Peak memory is about one tensor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import families
from ..contracts import FloatArray, Reference, Source
from ..errors import IntegrityError, UnsupportedModel
from ..families import Family
from ..tensorfile import TensorFile
from . import gguf, gguf_config
from .adapter import Adapted, read_adapter
from .prequantized import Packing, original_name, packing_of, unpacked
from .rowreader import RowReader
from .sliced import Sliced
from .slices import parse_slice

INDEX = "model.safetensors.index.json"
FLOATS = ("F32", "F16", "BF16")


@contextmanager
def open_reference(reference: Reference) -> Iterator[Mapping[str, FloatArray]]:
    """The model's parameters by their Hugging Face names; each access reads one. A tied head is not listed.

    Of a slice, those of the nested model.

    Raises IntegrityError for damaged files, UnsupportedModel for number formats that are not plain floats.
    """
    config = json.loads((reference.directory / "config.json").read_text())
    source = reference.source
    with open_source(source, config) as tensors:
        if source.slice and isinstance(tensors, RowReader):
            yield Sliced(tensors, families.get(config["model_type"]), config, parse_slice(source.slice))
        else:
            yield Adapted(tensors, read_adapter(source.adapter)) if source.adapter else tensors


@contextmanager
def open_source(source: Source, config: Mapping[str, Any]) -> Iterator[Mapping[str, FloatArray]]:
    """The same of a source's own files, for a config that `load` has completed: all of it, and without its adapter."""
    family = families.get(config["model_type"])
    with ExitStack() as stack:
        if source.format == "gguf":
            yield stack.enter_context(open_gguf(gguf_path(source), family, config))
        else:
            hidden = {family.head} if config.get("tie_word_embeddings", False) else set()
            packing = packing_of(json.loads((source.directory / "config.json").read_text()))
            yield SafetensorsReader(source, hidden, family, packing)


def gguf_path(source: Source) -> Path:
    """The one GGUF file of a source. Raises IntegrityError."""
    paths = [source.directory / file.path for file in source.files if file.path.endswith(".gguf")]
    if len(paths) != 1:
        raise IntegrityError(f"{source.name} has {len(paths)} GGUF files instead of one.", "Fetch it again.")
    return paths[0]


class SafetensorsReader(RowReader):
    """Tensors of one or several safetensors files; what is packed comes out as the floats it stands for."""

    def __init__(self, source: Source, hidden: set[str], family: Family, packing: Packing | None = None) -> None:
        self._files: dict[str, tuple[TensorFile, str]] = {}
        self._packing = packing
        self._holders: dict[str, TensorFile] = {}
        self._transposed = tuple(f"{path}.weight" for path in family.transposed)
        for path in safetensors_paths(source):
            opened = open_safetensors(path)
            for stored in opened.names():
                self._holders[stored] = opened
                original = original_name(stored, packing)
                if original and (name := full_name(original, family)) not in hidden:
                    self._files[name] = (opened, stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files  # the default reads the tensor to find out

    def __getitem__(self, name: str) -> FloatArray:
        file, stored = self._files[name]
        values = self._stored(file, stored)
        return np.ascontiguousarray(values.T) if name.endswith(self._transposed) and values.ndim == 2 else values

    def rows(self, name: str, begin: int, end: int) -> FloatArray:
        """Rows `begin` to `end` of a matrix, without reading the rest."""
        file, stored = self._files[name]
        if self._packed(stored) or name.endswith(self._transposed):
            return self[name][begin:end]
        self._check_kind(file, stored)
        return file.floats(stored, begin, end)

    def picked(self, name: str, ids: npt.NDArray[np.int64]) -> FloatArray:
        """The rows `ids` of a matrix."""
        return np.concatenate([self.rows(name, int(row), int(row) + 1) for row in ids])

    def check_shape(self, name: str, expected: tuple[int, ...]) -> None:
        """Raise IntegrityError when a parameter is stored in another shape than `expected`."""
        file, stored = self._files[name]
        found = self[name].shape if self._packed(stored) else file.shape(stored)
        if name.endswith(self._transposed) and len(found) == 2:
            found = found[::-1]
        if found != expected:
            raise IntegrityError(f"{name} has shape {found}, config.json says {expected}.", "Fetch it again.")

    def _packed(self, stored: str) -> bool:
        return self._packing is not None and stored.endswith(f".{self._packing.suffix}")

    def _stored(self, file: TensorFile, name: str) -> FloatArray:
        path, _, _ = name.rpartition(".")
        if self._packing and self._packed(name):
            return self._unpacked(path, self._packing)
        self._check_kind(file, name)
        return file.floats(name)

    @staticmethod
    def _check_kind(file: TensorFile, name: str) -> None:
        kind = file.kind(name)
        if kind not in FLOATS:
            raise UnsupportedModel(
                f"{name} is stored as {kind}: kobako starts from float weights, not from quantized ones.",
                "Name the original model.",
            )

    def _unpacked(self, path: str, packing: Packing) -> FloatArray:
        try:
            return unpacked(self._as_stored, path, packing)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise IntegrityError(
                f"{path} is not packed as {packing.method} packs ({error}).", "Fetch it again, or name the original."
            ) from error

    def _as_stored(self, name: str) -> npt.NDArray[Any]:
        file = self._holders[name]
        return file.floats(name) if file.kind(name) == "BF16" else file.read(name)


def full_name(stored: str, family: Family) -> str:
    """A parameter's name in the model with its head: checkpoints of the bare model leave its first part out."""
    if stored in family.stored_names:
        return family.stored_names[stored]
    for begin, wanted in family.stored_prefixes.items():
        if stored.startswith(begin):
            stored = wanted + stored.removeprefix(begin)
            break
    for end, now in family.stored_ends.items():
        if stored.endswith(end):
            stored = stored.removesuffix(end) + now
    base = family.embedding.partition(".")[0] + "."
    heads = tuple(f"{head.partition('.')[0]}." for head in (family.head, *family.heads) if head)
    return stored if stored.startswith((base, *heads)) else base + stored


def safetensors_paths(source: Source) -> list[Path]:
    """The weight files of a source; with an index, exactly those it names. Raises IntegrityError for missing ones."""
    present = {file.path for file in source.files if file.path.endswith(".safetensors")}
    if any(file.path == INDEX for file in source.files):
        try:
            wanted = set(json.loads((source.directory / INDEX).read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{INDEX} cannot be read: {error}.", "Fetch the model again.") from error
        if missing := sorted(wanted - present):
            raise IntegrityError(
                f"{len(missing)} of {len(wanted)} files named by {INDEX} are missing, the first is {missing[0]}.",
                "Fetch the model again.",
            )
        present = wanted
    if not present:
        raise IntegrityError(f"{source.name} has no weight files.", "Fetch the model again.")
    return [source.directory / path for path in sorted(present)]


def open_safetensors(path: Path) -> TensorFile:
    """A safetensors file, after its header was checked against its size. Raises IntegrityError naming it."""
    from safetensors import SafetensorError

    try:
        return TensorFile(path)
    except (SafetensorError, OSError) as error:
        raise IntegrityError(
            f"{path.name} ({path.stat().st_size if path.exists() else 0:,} bytes) is damaged: {error}.",
            "Fetch the model again.",
        ) from error


@contextmanager
def open_gguf(path: Path, family: Family, config: Mapping[str, Any]) -> Iterator[Mapping[str, FloatArray]]:
    """The tensors of a GGUF file, dequantized on access, under Hugging Face names."""
    header = gguf.read_header(path)
    with gguf.mapped(path) as data:
        yield GgufReader(header, data, family, config)


class GgufReader(Mapping[str, FloatArray]):
    """Tensors of a GGUF file by their Hugging Face names."""

    def __init__(self, header: gguf.Gguf, data: Any, family: Family, config: Mapping[str, Any]) -> None:
        self._header, self._data = header, data
        self._names = gguf_config.parameter_names(header, family)
        self._heads = permuted_heads(config) if family.gguf_rope_permuted else {}
        self._norms_offset = family.gguf_norms_offset

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> FloatArray:
        values = gguf.dequantized(self._data, self._header.tensors[self._names[name]])
        if self._norms_offset and "norm" in self._names[name]:
            return values - np.float32(self._norms_offset)
        heads = self._heads.get(name.rsplit(".", 2)[-2])
        return values if heads is None else half_rotated(values, heads)


def permuted_heads(config: Mapping[str, Any]) -> dict[str, int]:
    """How many heads each permuted projection has."""
    return {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}


def half_rotated(values: FloatArray, heads: int) -> FloatArray:
    """Rows of a projection ``[H * D, I]`` (or bias ``[H * D]``) from llama.cpp's order to Hugging Face's.

    llama.cpp rotates neighbours (0, 1), (2, 3), …; Hugging Face rotates halves (0, D/2), (1, D/2 + 1), ….
    """
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
