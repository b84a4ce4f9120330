"""Hugging Face modeling code → a LiteRT graph without weights: one subgraph per signature, weights as named inputs.

Parameters are empty tensors that nobody reads, so tracing a model costs no memory for its weights.

Shape legend: T tokens of a call, S slots of the cache, K key/value heads, G query heads per key/value head,
N = K·G query heads, D head dimension.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kobako.pipeline.contracts import Progress
from kobako.pipeline.reference.structure import (
    attention_options,
    cache_sizes,
    is_rotary,
    rope_parameters,
    rotary_tables,
)

from . import opaque

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

ATTENTION = "kobako_litert"
WEIGHT_PREFIX = "weights_"
CACHE_PREFIX = "caches_"
LOGITS = "logits"
DECODE = "decode"
FAR = -1e30


@dataclass(frozen=True, kw_only=True)
class Call:
    """One signature: its name, how many tokens it takes, and whether anyone reads its logits."""

    name: str
    tokens: int
    logits: bool


def key_name(layer: int) -> str:
    return f"kv_cache_k_{layer}"


def value_name(layer: int) -> str:
    return f"kv_cache_v_{layer}"


class Positions:
    """Where the tokens of the call being traced stand; masks of sliding windows are made of it, each once a call."""

    def __init__(self) -> None:
        self.masks: dict[int, Any] = {}
        self.input_pos: Any = None

    def begin(self, input_pos: torch.Tensor) -> None:
        """A new call."""
        self.input_pos, self.masks = input_pos, {}

    def narrowed(self, mask: torch.Tensor, window: int) -> torch.Tensor:
        """The engine's mask ``[1, 1, T, S]`` with the slots closed that lie `window` or more before a token."""
        import torch

        if window not in self.masks:
            slots = torch.arange(mask.shape[-1], dtype=torch.int32)[None]
            near = slots > self.input_pos[:, None] - window
            # smaller than the engine's own value, so that both together stay a finite number
            self.masks[window] = torch.where(near, 0.0, FAR)[None, None] + mask
        return self.masks[window]


def attention_function(positions: Positions) -> Any:
    """A function for transformers' AttentionInterface."""

    def attention(
        module: nn.Module,
        query: torch.Tensor,  # [1, N, T, D]
        key: torch.Tensor,  # [1, K, S, D]
        value: torch.Tensor,  # [1, K, D, S]: slots last, as the second product wants them
        mask: torch.Tensor,  # [1, 1, T, S], added
        **named: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attention over the whole cache; query heads that share a key are rows of one matrix product."""
        import torch

        matmul = opaque.operators()[opaque.MATMUL]
        _, heads, tokens, depth = query.shape
        groups = heads // key.shape[1]
        options = attention_options(module, named, depth, key.shape[2])
        if options.window is not None:
            mask = positions.narrowed(mask, options.window)
        rows = (query * options.scaling).reshape(1, key.shape[1], groups * tokens, depth)
        if tokens > 1:
            mask = torch.cat([mask] * groups, dim=2)
        scores = matmul(rows, key)
        if options.softcap is not None:
            scores = torch.tanh(scores / options.softcap) * options.softcap
        mixed = matmul(torch.softmax(scores + mask, dim=-1), value)
        return mixed.reshape(1, heads, tokens, -1).transpose(1, 2), None

    return attention


@functools.cache
def _rotary_class() -> type:
    import torch

    class RotaryTable(torch.nn.Module):
        """Cosines and sines of all S positions, by kind of layer."""

        def __init__(self, tables: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
            super().__init__()
            for kind, (cos, sin) in tables.items():
                self.register_buffer(f"cos{kind}", cos[0].clone())
                self.register_buffer(f"sin{kind}", sin[0].clone())

        def forward(self, _x: Any, position_ids: Any, layer_type: str = "") -> tuple[Any, Any]:
            rows = position_ids[0]
            tables = (self.get_buffer(f"{name}{layer_type}") for name in ("cos", "sin"))
            cos, sin = (torch.index_select(table, 0, rows)[None] for table in tables)
            return cos, sin

    return RotaryTable


def tabulate(model: nn.Module, slots: int) -> None:
    """Replace rotary embeddings that choose their factors while they run by a table of all positions."""
    for path, module in list(model.named_modules()):
        if is_rotary(module) and any(one.get("rope_type") == "longrope" for one in rope_parameters(module.config)):
            model.set_submodule(path, _rotary_class()(rotary_tables(module, slots)))


@functools.cache
def _slots_class() -> type:
    from transformers.cache_utils import CacheLayerMixin

    write = opaque.operators()[opaque.WRITE]

    class Slots(CacheLayerMixin):
        """One layer's static cache, written in place of the slots from `start` on."""

        def __init__(self, keys: Any, values: Any, start: Any) -> None:
            super().__init__()
            self.keys, self.values, self.start, self.is_initialized = keys, values, start, True

        def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
            """Nothing: the slots exist from the beginning."""

        def update(self, key_states: Any, value_states: Any, *_args: Any, **_kwargs: Any) -> tuple[Any, Any]:
            import torch

            zero = torch.zeros(1, dtype=torch.int32)
            self.keys = write(self.keys, key_states, torch.cat([zero, zero, self.start, zero]))
            self.values = write(self.values, value_states.transpose(2, 3), torch.cat([zero, zero, zero, self.start]))
            return self.keys, self.values

        def get_seq_length(self) -> int:
            return 0

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return self.keys.shape[2], 0

        def get_max_length(self) -> int:
            return self.keys.shape[2]

        get_max_cache_shape = get_max_length

    return Slots


@functools.cache
def _step_class() -> type:
    import torch
    from transformers import Cache

    class DecoderStep(torch.nn.Module):
        """The model as one function of tokens, positions, mask, caches and weights."""

        def __init__(self, model: PreTrainedModel, logits: bool, positions: Positions) -> None:
            super().__init__()
            self.hidden_from_parameters, self.logits, self.positions = [model], logits, positions

        def forward(self, tokens: Any, input_pos: Any, mask: Any, caches: Any, weights: Any) -> dict[str, Any]:
            model = self.hidden_from_parameters[0]
            self.positions.begin(input_pos)
            layers = [
                _slots_class()(caches[key_name(i)], caches[value_name(i)], input_pos[:1])
                for i in range(len(cache_sizes(model.config)))
            ]
            cache = Cache(layers=layers)
            named = {
                "input_ids": tokens,
                "attention_mask": mask,
                "position_ids": input_pos.unsqueeze(0),
                "past_key_values": cache,
                "use_cache": True,
            }
            with opaque.catching_weights():
                output = torch.func.functional_call(model, weights, kwargs=named, tie_weights=True)
            results = {key_name(i): layer.keys for i, layer in enumerate(layers)}
            results |= {value_name(i): layer.values for i, layer in enumerate(layers)}
            return results | ({LOGITS: output.logits} if self.logits else {})

    return DecoderStep


def cache_shapes(config: Any, slots: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all caches by name: keys ``[1, K, S, D]``, values ``[1, K, D, S]``."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (heads, key_dim, value_dim) in enumerate(cache_sizes(config)):
        shapes[key_name(layer)] = (1, heads, slots, key_dim)
        shapes[value_name(layer)] = (1, heads, value_dim, slots)
    return shapes


def _sample(model: PreTrainedModel, call: Call, slots: int) -> Mapping[str, Any]:
    import torch

    caches = {name: torch.empty(shape) for name, shape in cache_shapes(model.config, slots).items()}
    return {
        "tokens": torch.zeros(1, call.tokens, dtype=torch.int32),
        "input_pos": torch.arange(call.tokens, dtype=torch.int32),
        "mask": torch.empty(1, 1, call.tokens, slots),
        "caches": caches,
        "weights": {name: torch.empty(value.shape) for name, value in model.named_parameters()},
    }


def trace(
    model: PreTrainedModel, calls: tuple[Call, ...], slots: int, positions: Positions, progress: Progress
) -> bytes:
    """The flatbuffer of `calls`, one signature each, with opaque operators and weights as inputs.

    `model` has its parameters on the meta device and ``attn_implementation=ATTENTION``.
    """
    steps = [
        Step(call.name, _step_class()(model, call.logits, positions).eval(), _sample(model, call, slots))
        for call in calls
    ]
    return lowered(steps, progress)


@dataclass(frozen=True)
class Step:
    """One signature to trace: its name, the module, and sample arguments by name."""

    name: str
    module: Any
    sample: Mapping[str, Any]


def lowered(steps: Sequence[Step], progress: Progress) -> bytes:
    """The flatbuffer of modules traced one by one."""
    from litert_torch._convert import core, litert_converter, signature

    signatures, programs = [], []
    for number, step in enumerate(steps):
        progress(number / (len(steps) + 1), f"tracing {step.name}")
        signatures.append(signature.Signature(step.name, step.module, None, step.sample))
        # the lowering decomposes once more anyway
        programs.append(core.export_torch_signature(signatures[-1], run_decompositions=False))
    progress(len(steps) / (len(steps) + 1), "lowering")
    return bytes(litert_converter.exported_programs_to_flatbuffer(programs, signatures).to_bytes())


def mark_layers(layers: Any) -> None:
    """Put a MARK before every layer of a ModuleList and one behind the last."""
    mark = opaque.operators()[opaque.MARK]

    def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (mark(inputs[0]), *inputs[1:])

    def after(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return (mark(output[0]), *output[1:]) if isinstance(output, tuple) else mark(output)

    for layer in layers:
        layer.register_forward_pre_hook(before)
    layers[-1].register_forward_hook(after)


def register_attention(positions: Positions) -> None:
    """Make our attention known to transformers under the name ATTENTION."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attention_function(positions))
