"""The quantized reference's key and value cache, kept as an artifact keeps it.

Shape legend: B batch, H key/value heads, T tokens, D head dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..contracts import KvCache

if TYPE_CHECKING:
    import torch

SMALLEST_STEP = 6.1e-5
"""ExecuTorch's ``choose_qparams`` takes no smaller one (``SMALL_SCALE_THRESHOLD``)."""


def new_cache(kind: KvCache) -> Any:
    """An empty cache that keeps all keys, those of sliding layers too: transformers' own, made without a config."""
    from transformers import DynamicCache

    if kind == "float":
        return DynamicCache()

    class RoundedCache(DynamicCache):
        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **named: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:  # [B, H, T, D]
            rounded = (fake_int8_per_head(states) for states in (key_states, value_states))
            return super().update(*rounded, layer_idx, *args, **named)

    return RoundedCache()


def fake_int8_per_head(x: torch.Tensor) -> torch.Tensor:
    """Asymmetric int8 rounding of the last axis' rows, and back: ``[..., D]`` to ``[..., D]`` float32.

    Step by step as ExecuTorch's portable kernels compute it (``choose_qparams_per_token_asymmetric.out``,
    ``quantize_per_token.out``, ``dequantize_per_token.out``), in float64 where they do.
    """
    import torch

    low = x.amin(dim=-1, keepdim=True).clamp(max=0.0).double()
    high = x.amax(dim=-1, keepdim=True).clamp(min=0.0).double()
    step = (high - low) / 255.0
    step = torch.where(step.float() == 0.0, torch.full_like(step, 0.1), step)
    small = step < SMALLEST_STEP
    grown = torch.where(small, SMALLEST_STEP / step, torch.ones_like(step))
    low, high, step = low * grown, high * grown, torch.where(small, torch.full_like(step, SMALLEST_STEP), step)
    below, above = -128.0 - low / step, 127.0 - high / step
    smaller_terms = (128.0 - (low / step).abs()) < (127.0 - (high / step).abs())
    zero = torch.where(smaller_terms, below, above).clamp(-128, 127).round().float()
    codes = torch.clamp(torch.round(x * (1.0 / step.float())) + zero, -128, 127)
    return (codes - zero) * step.float()
