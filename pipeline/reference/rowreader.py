"""Tensors that may be read a few rows at a time, so that a table of billions of values is never whole in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..contracts import FloatArray


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
