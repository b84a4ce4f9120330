"""What is traced: Hugging Face modeling code around quantized linear layers, a position table and a static KV cache.

Nothing here knows an architecture: linear layers, the embedding and the rotary embedding are replaced by their role.

Shape legend: S tokens fed at once (dynamic), C slots of the KV cache, H key/value heads, D head dimension,
V vocabulary, I / O inputs / outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from kobako.pipeline import families
from kobako.pipeline.contracts import KvCache
from kobako.pipeline.reference.structure import attention_options, cache_sizes, rotary_tables
from kobako.pipeline.weights import QuantizedTensor, Shifts
from torch import nn

from .cache import CACHES, buffers
from .position import Position

ATTENTION = "kobako_executorch"


class DynamicLinear(nn.Module):
    """A linear layer of stored codes, its input rounded to asymmetric int8 per token: XNNPACK's ``qd8`` kernels."""

    weight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, weight: QuantizedTensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.grouped = weight.bits == 4
        self.group_size = weight.group_size
        scales = torch.from_numpy(weight.scales)
        self.register_buffer("weight", torch.from_numpy(weight.codes))
        self.register_buffer("scales", scales if self.grouped else scales[:, 0].contiguous())
        self.register_buffer("zeros", zeros(self.scales, torch.int32 if self.grouped else torch.int64))
        self.bias = bias
        self.side = BlockShifts(weight.shifts) if weight.shifts is not None else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., I]`` → ``[..., O]``, in the operators that XNNPACK's partitioner recognizes."""
        rounded = rounded_per_token(x)
        main = nn.functional.linear(rounded, self.dequantized(), self.bias)
        return main if self.side is None else main + self.side(rounded)

    def dequantized(self) -> torch.Tensor:
        """The weight as float32 ``[O, I]``."""
        ops = torch.ops.quantized_decomposed
        if self.grouped:
            return ops.dequantize_per_channel_group(
                self.weight, self.scales, self.zeros, -8, 7, torch.int8, self.group_size, torch.float32
            )
        return ops.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)


class BlockShifts(nn.Module):
    """What the shifts of asymmetric blocks add: the sum of each block of inputs, times the block's shift.

    XNNPACK's kernels for 4-bit blocks are symmetric; this is a second, small int8 layer beside them.
    """

    weight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, shifts: Shifts) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(shifts.codes))
        self.register_buffer("scales", torch.from_numpy(shifts.scales[:, 0]))
        self.register_buffer("zeros", zeros(self.scales, torch.int64))

    def forward(self, rounded: torch.Tensor) -> torch.Tensor:
        """Inputs already rounded, ``[..., I]`` → ``[..., O]``."""
        sums = rounded.unflatten(-1, (self.weight.shape[1], -1)).sum(-1)  # `graph.block_sum_as_linear` rewrites this
        ops = torch.ops.quantized_decomposed
        shifts = ops.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)
        return nn.functional.linear(rounded_per_token(sums), shifts)


def zeros(scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As many zeros as there are scales, all of them the same number in memory."""
    return torch.zeros((), dtype=dtype).expand(scales.shape)


def rounded_per_token(x: torch.Tensor) -> torch.Tensor:
    """Asymmetric int8 per token and back: what XNNPACK's ``qd8`` kernels see of ``[..., I]``."""
    ops = torch.ops.quantized_decomposed
    scale, zero = ops.choose_qparams_per_token_asymmetric(x, torch.int8)
    codes = ops.quantize_per_token(x, scale, zero, -128, 127, torch.int8)
    rounded: torch.Tensor = ops.dequantize_per_token(codes, scale, zero, -128, 127, torch.int8, torch.float32)
    return rounded


class HalfLinear(nn.Module):
    """A linear layer of float16 weights, widened when the runtime loads them; computes in float32."""

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., I]`` → ``[..., O]``."""
        return nn.functional.linear(x, self.weight.float(), self.bias)


class ByteEmbedding(nn.Module):
    """Rows of int8 codes with one scale each, looked up without ever being expanded."""

    weight: torch.Tensor

    def __init__(self, weight: QuantizedTensor, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("weight", torch.from_numpy(weight.codes))
        self.register_buffer("scales", torch.from_numpy(weight.scales[:, 0]))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 ``[1, S]`` → float32 ``[1, S, hidden]``, times the model's own scale of embeddings."""
        lookup = torch.ops.quantized_decomposed.embedding_byte.dtype
        rows = lookup(self.weight, self.scales, None, -128, 127, ids, dtype=torch.float32)
        return rows if self.scale == 1.0 else rows * self.scale


class GroupedEmbedding(nn.Module):
    """Rows of 4-bit codes in asymmetric blocks, looked up in the bytes that the head's delegate reads too.

    Written in portable operators: two codes come apart by integer division, once per token.
    """

    weight: torch.Tensor
    scales: torch.Tensor
    shifts: torch.Tensor
    shift_scales: torch.Tensor

    def __init__(self, weight: QuantizedTensor, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        assert weight.shifts is not None
        self.group_size = weight.group_size
        self.register_buffer("weight", pack_nibbles(torch.from_numpy(weight.codes)))
        self.register_buffer("scales", torch.from_numpy(weight.scales).to(torch.bfloat16))
        self.register_buffer("shifts", torch.from_numpy(weight.shifts.codes))
        self.register_buffer("shift_scales", torch.from_numpy(weight.shifts.scales))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 ``[1, S]`` → float32 ``[1, S, hidden]``, times the model's own scale of embeddings."""
        row = ids[0]
        pairs = self.weight.index_select(0, row).to(torch.int32)  # [S, hidden / 2]
        low, high = torch.remainder(pairs, 16), torch.div(pairs, 16, rounding_mode="floor")
        codes = torch.stack([low, high], dim=-1).flatten(1).to(torch.float32) - 8.0
        scales = self.scales.index_select(0, row).to(torch.float32)  # [S, G]
        shifts = self.shifts.index_select(0, row).to(torch.float32) * self.shift_scales.index_select(0, row)
        blocks = codes.unflatten(1, (-1, self.group_size)) * scales[:, :, None] + shifts[:, :, None]
        rows = blocks.flatten(1)[None]
        return rows if self.scale == 1.0 else rows * self.scale


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """int8 ``[O, I]`` in −8…7 → uint8 ``[O, I/2]``: XNNPACK's order, even inputs in the low nibble, offset by 8."""
    shifted = (codes + 8).to(torch.uint8)
    return shifted[:, ::2] | (shifted[:, 1::2] << 4)


class HalfEmbedding(nn.Module):
    """Rows of float16, looked up and then widened to float32."""

    weight: torch.Tensor

    def __init__(self, weight: torch.Tensor, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("weight", weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 ``[1, S]`` → float32 ``[1, S, hidden]``, times the model's own scale of embeddings."""
        rows = nn.functional.embedding(ids, self.weight).float()
        return rows if self.scale == 1.0 else rows * self.scale


class RotaryTable(nn.Module):
    """Cosines and sines of every position, computed once by the model's own rotary embedding."""

    def __init__(self, rotary: Any, position: Position) -> None:
        super().__init__()
        for kind, (cos, sin) in rotary_tables(rotary, position.slots).items():
            self.register_buffer(f"cos{kind}", cos)
            self.register_buffer(f"sin{kind}", sin)
        self.position = position

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str = ""
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows start … start + S of both tables, ``[1, S, D]``; of what the caller assumes only the number S counts."""
        start, length = self.position.start, position_ids.shape[1]
        cos, sin = self.get_buffer(f"cos{layer_type}"), self.get_buffer(f"sin{layer_type}")
        return cos.narrow(1, start, length), sin.narrow(1, start, length)


def attention_function(position: Position) -> Callable[..., tuple[torch.Tensor, None]]:
    """A function for transformers' AttentionInterface that calls ExecuTorch's fused causal attention.

    A layer that slides passes a mask to it; scores with a soft cap, which it does not have, are spelled out.
    """

    def attend(
        module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _mask: object, **named: Any
    ) -> tuple[torch.Tensor, None]:
        filled, tokens = key.shape[1], query.shape[2]
        depth = getattr(module, "v_head_dim", query.shape[-1])
        options = attention_options(module, named, query.shape[-1], position.slots)
        if options.softcap is not None:
            mask = position.mask(tokens, filled, options.window)
            return capped(query * options.scaling, key, value, mask, options.softcap), None
        narrowed = None if options.window is None else position.mask(tokens, filled, options.window)
        swapped, start = query.transpose(1, 2), position.start
        sdpa = torch.ops.llama.custom_sdpa
        output = sdpa(swapped, key, value, start, narrowed, 0.0, narrowed is None, options.scaling)
        return output if depth == output.shape[-1] else output[..., :depth], None

    return attend


def capped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, softcap: float
) -> torch.Tensor:
    """Attention whose scores s become ``softcap · tanh(s / softcap)``: ``[1, N, S, D]`` → ``[1, S, N, D]``."""
    groups = query.shape[1] // key.shape[2]
    keys, values = (part.transpose(1, 2).repeat_interleave(groups, dim=1) for part in (key, value))
    scores = torch.matmul(query / softcap, keys.transpose(2, 3))
    weights = torch.softmax(torch.tanh(scores) * softcap + mask, dim=-1)
    return torch.matmul(weights, values).transpose(1, 2)


class Decoder(nn.Module):
    """``(tokens int64 [1, S], start_pos int64 [1])`` → logits ``[1, V]`` of the last token."""

    def __init__(self, model: Any, position: Position, kv_cache: KvCache) -> None:
        super().__init__()
        self.model = model
        self.context_tokens = position.slots
        self.position = position
        self.probe = False
        self.kv_cache = kv_cache
        model.get_output_embeddings().register_forward_pre_hook(last_token)
        for name, value in buffers(cache_sizes(model.config), position.slots, kv_cache):
            self.register_buffer(name, value)

    def forward(self, tokens: torch.Tensor, start_pos: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        start = start_pos[0].item()
        torch._check(start >= 0)
        torch._check(start + tokens.shape[1] <= self.context_tokens)
        self.position.begin(start)
        cache = CACHES[self.kv_cache](self.get_buffer, self.position)
        states: list[torch.Tensor] = []
        hooks = self.watch(states) if self.probe else []
        logits = self.model(
            input_ids=tokens,
            position_ids=torch.arange(tokens.shape[1])[None] + start,
            past_key_values=cache,
            attention_mask=None,
            use_cache=True,
        ).logits
        for hook in hooks:
            hook.remove()
        return (logits, *states) if self.probe else logits

    def watch(self, states: list[torch.Tensor]) -> list[Any]:
        """Collect the hidden state ``[1, S, hidden]`` after each decoder layer into `states`."""

        def keep(_module: nn.Module, _inputs: object, output: Any) -> None:
            states.append(output[0] if isinstance(output, tuple) else output)

        layers = self.model.get_submodule(families.get(self.model.config.model_type).layers)
        return [layer.register_forward_hook(keep) for layer in layers]


def last_token(_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
    """What the head is given: the last token's hidden state only, ``[1, S, hidden]`` → ``[1, hidden]``."""
    return (inputs[0][:, -1, :],)
