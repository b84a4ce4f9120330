"""The tensors of a nested model, cut out of the whole checkpoint as they are read: no copy of it is made anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..contracts import FloatArray
from ..errors import IntegrityError
from ..families import Family
from .rowreader import RowReader
from .slices import Slice

FIRST_ROWS = ("mlp.gate_proj.weight", "mlp.up_proj.weight")
FIRST_COLUMNS = ("mlp.down_proj.weight",)


class Sliced(RowReader):
    """A checkpoint's tensors under the names, and in the shapes, that they have in the nested model.

    Shapes: gate and up ``[I, hidden]`` lose their last rows, down ``[hidden, I]`` its last columns; the projection of
    per-layer inputs ``[L·D, hidden]`` loses the rows, and their table ``[V, L·D]`` the columns, of layers left out.
    """

    def __init__(self, tensors: RowReader, family: Family, config: Mapping[str, Any], taken: Slice) -> None:
        """`config` is the nested model's (`slices.sliced_config`)."""
        self._tensors = tensors
        self._table, self._projection = family.per_layer_table, family.per_layer_projection
        self._widths: dict[str, int] = {}
        self._layers = len(config["intermediate_size"]) + len(taken.skip)
        self._kept = [layer for layer in range(self._layers) if layer not in taken.skip]
        self._names = dict(self._renamed(family.layers, list(config["intermediate_size"])))

    def _renamed(self, layers: str, widths: list[int]) -> Iterator[tuple[str, str]]:
        """Names in the nested model, and in the checkpoint."""
        numbered = re.compile(rf"{re.escape(layers)}\.(\d+)\.(.*)")
        places = {layer: place for place, layer in enumerate(self._kept)}
        for stored in self._tensors:
            found = numbered.fullmatch(stored)
            if found is None:
                yield stored, stored
            elif (place := places.get(int(found[1]))) is not None:
                name = f"{layers}.{place}.{found[2]}"
                if found[2] in (*FIRST_ROWS, *FIRST_COLUMNS):
                    self._widths[name] = widths[place]
                yield name, stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> FloatArray:
        stored = self._names[name]
        if name.endswith(FIRST_ROWS):
            return self._tensors.rows(stored, 0, self._widths[name])
        whole = self._tensors[stored]
        if name.endswith(FIRST_COLUMNS):
            return np.ascontiguousarray(whole[:, : self._widths[name]])
        if name == self._projection:
            return whole[self._of_kept_layers(len(whole))]
        return whole[:, self._of_kept_layers(whole.shape[1])] if name == self._table else whole

    def rows(self, name: str, begin: int, end: int) -> FloatArray:
        """As of `RowReader`."""
        if self._cut(name):
            return self[name][begin:end]
        return self._without(name, self._tensors.rows(self._names[name], begin, end))

    def picked(self, name: str, ids: npt.NDArray[np.int64]) -> FloatArray:
        """As of `RowReader`, for what keeps its rows."""
        return self._without(name, self._tensors.picked(self._names[name], ids))

    def check_shape(self, name: str, expected: tuple[int, ...]) -> None:
        """As of `RowReader`; of the table of per-layer inputs, the whole one is looked at."""
        if self._cut(name):
            if (found := self[name].shape) != expected:
                raise IntegrityError(f"{name} has shape {found}, config.json says {expected}.", "Fetch it again.")
            return
        if name == self._table:
            rows, columns = expected
            expected = (rows, columns // len(self._kept) * self._layers)
        self._tensors.check_shape(self._names[name], expected)

    def _cut(self, name: str) -> bool:
        """Whether a tensor has other rows than in the checkpoint, or is cut like one that has."""
        return name in self._widths or name == self._projection

    def _without(self, name: str, rows: FloatArray) -> FloatArray:
        return rows[:, self._of_kept_layers(rows.shape[1])] if name == self._table else rows

    def _of_kept_layers(self, size: int) -> npt.NDArray[np.int64]:
        """Where the values of kept layers stand among `size` that are stored layer by layer."""
        return np.arange(size).reshape(self._layers, -1)[self._kept].reshape(-1)
