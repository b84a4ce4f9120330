"""The original model in eager float32 PyTorch, filled tensor by tensor."""

from __future__ import annotations

from functools import partial
from typing import Any

from .. import families
from ..contracts import Reference
from ..errors import IntegrityError
from .eager import empty_model_in, look_up_outside, set_parameter, tie
from .rowreader import RowReader
from .weights import open_reference


def reference_model(reference: Reference, attention: str | None = None) -> Any:
    """The model as its makers meant it: float32 weights, transformers' own code, on the CPU, in eval mode.

    Raises IntegrityError when the checkpoint lacks a parameter or holds one of another shape.
    """
    import torch

    model = empty_model_in(reference.directory, attention)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    with open_reference(reference) as tensors:
        missing = [name for name in expected if name not in tensors]
        if missing:
            raise IntegrityError(
                f"the checkpoint lacks {len(missing)} tensors, the first is {missing[0]}.", "Fetch it again."
            )
        for name, shape in expected.items():
            if name == families.get(reference.model_type).per_layer_table and isinstance(tensors, RowReader):
                tensors.check_shape(name, shape)
                look_up_outside(model, name, partial(tensors.picked, name))
                continue
            value = tensors[name]
            if value.shape != shape:
                raise IntegrityError(f"{name} has shape {value.shape}, config.json says {shape}.", "Fetch it again.")
            set_parameter(model, name, torch.from_numpy(value if value.flags.writeable else value.copy()))
    tie(model)
    return model
