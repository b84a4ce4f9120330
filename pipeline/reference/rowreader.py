"""Tensors that may be read a few rows at a time, so that a table of billions of values is never whole in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..contracts import FloatArray


@runtime_checkable
class HasRows(Protocol):
    """What reads rows of a parameter without reading the rest."""

    def rows(self, name: str, begin: int, end: int) -> FloatArray:
        """Rows `begin` to `end`."""


def rows_of(tensors: Mapping[str, FloatArray], name: str, begin: int, end: int) -> FloatArray:
    """Rows of a parameter from wherever it lies; a scalar is a row of its own."""
    if isinstance(tensors, HasRows):
        return tensors.rows(name, begin, end)
    value = tensors[name]
    return value[begin:end] if value.ndim else value


class RowReader(Mapping[str, FloatArray]):
    """A checkpoint's tensors by Hugging Face name, each access reading one, or rows of a matrix."""

    @abstractmethod
    def rows(self, name: str, begin: int, end: int) -> FloatArray:
        """Rows `begin` to `end` of a matrix, without reading the rest."""

    @abstractmethod
    def picked(self, name: str, ids: npt.NDArray[np.int64]) -> FloatArray:
        """The rows `ids` of a matrix."""

    @abstractmethod
    def check_shape(self, name: str, expected: tuple[int, ...]) -> None:
        """Raise IntegrityError when a parameter is stored in another shape than `expected`."""
