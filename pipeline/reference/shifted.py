"""The linear layers of the quantized reference whose blocks are asymmetric, and how its numbers are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..contracts import FloatArray
from ..weights import QuantizedTensor, QuantizedWeights, dequantized

if TYPE_CHECKING:
    import torch
    from torch import nn


def shift_linears(model: nn.Module, weights: QuantizedWeights, tied: Mapping[str, str]) -> dict[str, str]:
    """Replace the linear layers of asymmetric blocks; their parameters, and the names under which each is stored."""
    from torch import nn

    found = {}
    for path, module in list(model.named_modules()):
        name = f"{path}.weight"
        stored = tied.get(name, name)
        if isinstance(module, nn.Linear) and weights.shifted(stored):
            model.set_submodule(path, shifted_linear(weights, stored, module.bias))
            found[name] = stored
    return found


def value_rows(weights: QuantizedWeights, name: str, begin: int, end: int) -> FloatArray:
    """Rows of a parameter, whatever it is stored as."""
    return dequantized(weights.rows(name, begin, end))


def symmetric_rows(weights: QuantizedWeights, name: str, begin: int, end: int) -> FloatArray:
    """Rows of a matrix of asymmetric blocks, without their shifts."""
    tensor = weights.rows(name, begin, end)
    assert isinstance(tensor, QuantizedTensor)
    return tensor.symmetric_part()


def shifted_linear(weights: QuantizedWeights, name: str, bias: nn.Parameter | None) -> nn.Linear:
    """A linear layer of asymmetric blocks, computed as symmetric codes and a second layer over the blocks' sums.

    That is how runtimes with symmetric kernels carry it; ``round_sums`` is what they do to the sums. Its matrix is
    empty still.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Shifted(nn.Linear):
        shifts: torch.Tensor
        round_sums: Callable[[torch.Tensor], torch.Tensor] = staticmethod(lambda sums: sums)

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # [..., I] -> [..., O]
            sums = x.unflatten(-1, (self.shifts.shape[1], -1)).sum(-1)  # [..., G]
            side = functional.linear(self.round_sums(sums), self.shifts)
            return self.product(x) + side

        def product(self, x: torch.Tensor) -> torch.Tensor:
            return functional.linear(x, self.weight, self.bias)

    outputs, inputs = weights.shape(name)
    made = Shifted(inputs, outputs, bias=False, device="meta")
    made.weight.requires_grad_(False)
    made.register_parameter("bias", bias)
    made.register_buffer("shifts", torch.from_numpy(weights.shifts(name).dequantize()))
    return made.eval()
