"""In the Core ML peer's environment: a language model by the vendor's public recipe, and nothing beyond it.

torch.jit.trace of the Hugging Face model with key and value caches as two states, then ct.convert: float16, iOS 18,
flexible query length, mask as an input. No kernel of the model is rewritten: that is the point of the comparison.

usage: coreml_convert.py CHECKPOINT OUT.mlpackage CONTEXT_TOKENS [FIXED_TOKENS]

With FIXED_TOKENS the query has that one length: the same arithmetic, in a form that kobako's interpreter (which reads
static shapes) can check. What is timed and weighed is the flexible one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import Cache


class SliceCache(Cache):  # type: ignore[misc]
    """Keys and values of all layers in one buffer each, ``[L, 1, H, S, D]``, written in place by slices."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__(layers=[])
        self.keys, self.values, self.past = keys, values, 0

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any) -> Any:
        """Write the new slice of a layer; everything up to its end."""
        end = self.past + key.shape[2]
        self.keys[layer : layer + 1, :, :, self.past : end] = key[None]
        self.values[layer : layer + 1, :, :, self.past : end] = value[None]
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before this call."""
        return self.past


class Stateful(torch.nn.Module):
    """``(tokens [1, T], mask [1, 1, T, past + T]) -> logits [1, T, V]``; the caches are buffers, so states."""

    def __init__(self, model: Any, context_tokens: int) -> None:
        super().__init__()
        self.model = model
        config = model.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 1, config.num_key_value_heads, context_tokens, head)
        self.register_buffer("keys", torch.zeros(shape))
        self.register_buffer("values", torch.zeros(shape))

    keys: torch.Tensor
    values: torch.Tensor

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Positions follow from the mask's width, as in the recipe."""
        cache = SliceCache(self.keys, self.values)
        cache.past = mask.shape[-1] - tokens.shape[-1]
        positions = torch.arange(cache.past, mask.shape[-1])[None]
        answer = self.model(tokens, attention_mask=mask, past_key_values=cache, position_ids=positions, use_cache=True)
        logits: torch.Tensor = answer.logits
        return logits


def shapes(ct: Any, context: int, fixed: int) -> tuple[Any, Any]:
    """Query length and total length: flexible, or both `fixed`."""
    if fixed:
        return fixed, fixed
    flexible = [ct.RangeDim(lower_bound=1, upper_bound=context, default=1) for _ in range(2)]
    return flexible[0], flexible[1]


def traced(checkpoint: str, context: int, fixed: int) -> tuple[Any, Stateful]:
    """The TorchScript graph of the model, traced with caches."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="sdpa")
    stateful = Stateful(model.eval(), context).eval()
    query, total = (fixed, fixed) if fixed else (2, 5)
    example = (torch.zeros((1, query), dtype=torch.int32), torch.zeros((1, 1, query, total)))
    with torch.no_grad():
        return torch.jit.trace(stateful, example, check_trace=False), stateful  # type: ignore[no-untyped-call]


def main() -> None:
    checkpoint, out, context = sys.argv[1], sys.argv[2], int(sys.argv[3])
    fixed = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    import coremltools as ct

    graph, stateful = traced(checkpoint, context, fixed)
    query, total = shapes(ct, context, fixed)
    converted = ct.convert(
        graph,
        inputs=[
            ct.TensorType("tokens", shape=(1, query), dtype=np.int32),
            ct.TensorType("mask", shape=(1, 1, query, total), dtype=np.float16),
        ],
        outputs=[ct.TensorType("logits", dtype=np.float16)],
        states=[
            ct.StateType(ct.TensorType(shape=tuple(getattr(stateful, name).shape), dtype=np.float16), name=name)
            for name in ("keys", "values")
        ],
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
    )
    converted.save(out)
    print("{}")


if __name__ == "__main__":
    main()
