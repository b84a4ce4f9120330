"""Weights as tensors over mapped files, and the way back: in which file, at which byte, a tensor lies.

A tensor that is only to be written somewhere else is read from its file, a few rows at a time. Read through the map,
every page of it would count as memory of this process until the end.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from kobako.pipeline.contracts import Quantized
from kobako.pipeline.tensorfile import DTYPES, TensorFile
from kobako.pipeline.weights import WEIGHTS_FILE, QuantizedWeights

_maps: WeakValueDictionary[int, np.memmap[Any, Any]] = WeakValueDictionary()
"""What is mapped now, by address."""


def mapped_bytes(path: Path, begin: int, size: int) -> npt.NDArray[np.uint8]:
    """A part of a file, uint8 ``[size]``; copy on write, since torch wants memory that could be written."""
    data = np.memmap(path, np.uint8, mode="c", offset=begin, shape=(size,))
    _maps[data.ctypes.data] = data
    return data


def place_of(tensor: torch.Tensor) -> tuple[Path, int] | None:
    """The file that a contiguous tensor is mapped from and its first byte there; None when it lies in memory."""
    address = tensor.data_ptr()
    for start, data in list(_maps.items()):
        if start <= address < start + data.nbytes and tensor.is_contiguous():
            return Path(str(data.filename)), int(data.offset) + address - start
    return None


class _MappedFile(TensorFile):
    """A safetensors file whose tensors are read when their values are."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._data = mapped_bytes(path, 0, path.stat().st_size)

    def read(self, name: str) -> npt.NDArray[Any]:
        """A tensor over the mapped bytes."""
        stored = self._stored[name]
        kind = DTYPES[stored.kind]
        end = stored.offset + math.prod(stored.shape) * kind.itemsize
        return np.asarray(self._data[stored.offset : end].view(kind).reshape(stored.shape))


class MappedWeights(QuantizedWeights):
    """The tensors of a ``weights.safetensors``, none of them in memory before it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = _MappedFile(path)


def map_weights(quantized: Quantized) -> MappedWeights:
    """The weights of a Quantized, mapped."""
    return MappedWeights(quantized.directory / WEIGHTS_FILE)
