"""The original model in eager float32 PyTorch, filled tensor by tensor."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from .. import families
from ..contracts import FloatArray, Reference
from ..errors import IntegrityError
from .eager import empty_model_in, look_up_outside
from .residence import EVERYTHING, Budget, Residence
from .rowreader import RowReader, rows_of
from .weights import open_reference


def reference_model(reference: Reference, attention: str | None = None, budget: Budget = EVERYTHING) -> Any:
    """The model as its makers meant it: float32 weights, transformers' own code, on the CPU, in eval mode.

    Weights beyond the `budget` are read when they are needed; ``model.residence`` says which, and replaces them.
    Raises IntegrityError when the checkpoint lacks a parameter or holds one of another shape.
    """
    model = empty_model_in(reference.directory, attention)
    with ExitStack() as stack:
        tensors = stack.enter_context(open_reference(reference))
        _fill(model, tensors, families.get(reference.model_type).per_layer_table, budget)
        weakref.finalize(model, stack.pop_all().close)
    return model


def _fill(model: Any, tensors: Mapping[str, FloatArray], table: str | None, budget: Budget) -> None:
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise IntegrityError(
            f"the checkpoint lacks {len(missing)} tensors, the first is {missing[0]}.", "Fetch it again."
        )
    by_rows = isinstance(tensors, RowReader)
    if table and table in expected and isinstance(tensors, RowReader):
        tensors.check_shape(table, expected.pop(table))
        look_up_outside(model, table, partial(tensors.picked, table))
    model.residence = residence = Residence(model, budget, row_by_row=by_rows)
    for name, shape in expected.items():
        if isinstance(tensors, RowReader):
            tensors.check_shape(name, shape)
        elif (found := tensors[name].shape) != shape:
            raise IntegrityError(f"{name} has shape {found}, config.json says {shape}.", "Fetch it again.")
        residence.put(name, partial(rows_of, tensors, name))
