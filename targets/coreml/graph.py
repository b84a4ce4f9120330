"""The PyTorch side of the export: the Hugging Face model, re-fitted so that Core ML can run its trace in float16.

Four things change, none of them a different number in float32:

- matrices are *fed* into the graph as arguments, so that no large constant goes through the converter;
- RMSNorm divides by the row's largest magnitude before it squares (a plain square overflows float16 beyond 256);
- rotary cosines and sines come from a table made here in float32 (position × frequency is useless in float16);
- the KV cache is two buffers per layer, ``k_cache_N`` and ``v_cache_N`` ``[1, H, S, D]``, which become Core ML states.

Shape legend: `kobako.pipeline.contracts`; here T is the fixed chunk length of one function.
"""

from __future__ import annotations

from typing import Any

import torch
from kobako.pipeline import families
from kobako.pipeline.contracts import Quantized
from kobako.pipeline.embeddings import Table
from kobako.pipeline.reference.eager import empty_model, load_config, open_table_of, set_parameter
from kobako.pipeline.reference.structure import (
    NormFacts,
    cache_sizes,
    check_decoder,
    embedding_scale,
    is_norm,
    is_rotary,
    norm_facts,
    rotary_tables,
)
from kobako.pipeline.weights import open_weights
from torch import nn
from torch.nn import functional
from transformers.cache_utils import Cache

from .attention import ATTENTION, Masks, Sizes, registered_attention

SMALLEST = 1e-4  # rows below it are divided by it instead, so that sqrt(eps) / a stays small in float16


class FedLinear(nn.Module):
    """A linear layer whose matrix is looked up in `table` when it runs."""

    def __init__(self, table: dict[str, torch.Tensor], name: str, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.table, self.matrix, self.bias = table, name, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.table[self.matrix], self.bias)


class FedEmbedding(nn.Module):
    """An embedding whose matrix is looked up in `table` when it runs; rows are multiplied by `scale`."""

    def __init__(self, table: dict[str, torch.Tensor], name: str, scale: float) -> None:
        super().__init__()
        self.table, self.matrix, self.scale = table, name, scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = functional.embedding(ids, self.table[self.matrix])
        return rows if self.scale == 1.0 else rows * self.scale


class FedRows(nn.Module):
    """An embedding whose rows are an input of the graph: what the model's table holds of the call's tokens."""

    given: torch.Tensor  # [1, T, L, W], times the model's own scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.given.reshape(*ids.shape, -1)


class SafeNorm(nn.Module):
    """RMSNorm or LayerNorm with no intermediate larger than twice `x` itself: ``w · x / sqrt(mean(x²) + eps) + b``."""

    smallest: torch.Tensor
    root: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, facts: NormFacts, reads: float = 1.0, writes: float = 1.0) -> None:
        """`reads`: the input is so many times the model's own; `writes`: the output shall be."""
        super().__init__()
        self.centred = facts.centred
        weight = torch.ones(1) if facts.weight is None else facts.weight.detach()
        self.weight = nn.Parameter(weight * writes, requires_grad=False)
        self.register_buffer("bias", None if facts.bias is None else facts.bias.detach() * writes)
        self.register_buffer("smallest", torch.tensor([SMALLEST]))
        self.register_buffer("root", torch.tensor([facts.epsilon**0.5 * reads]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        largest = torch.maximum(x.abs().amax(-1, keepdim=True), self.smallest)
        y = x / largest
        # eps/a² as a square of a quotient: a² alone would underflow.
        root = self.root / largest
        y = y * torch.rsqrt((y * y).mean(-1, keepdim=True) + root * root) * self.weight
        return y if self.bias is None else y + self.bias


class RotaryTable(nn.Module):
    """Cosines and sines of all S positions, made once by the model's own rotary module, for each kind of layer."""

    def __init__(self, rotary: nn.Module, slots: int) -> None:
        super().__init__()
        for kind, (cos, sin) in rotary_tables(rotary, slots).items():
            self.register_buffer(f"cos{kind}", cos[0].clone())
            self.register_buffer(f"sin{kind}", sin[0].clone())

    def forward(
        self, _x: torch.Tensor, position_ids: torch.Tensor, layer_type: str = ""
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = position_ids[0]
        return self.get_buffer(f"cos{layer_type}")[rows][None], self.get_buffer(f"sin{layer_type}")[rows][None]


class StateCache(Cache):
    """A Cache that writes a chunk into the owner's buffers at its position and returns all S slots."""

    def __init__(self, owner: StatefulModel) -> None:
        self.owner = owner
        self.layers: list[Any] = []

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.owner.start
        keys, values = getattr(self.owner, f"k_cache_{layer}"), getattr(self.owner, f"v_cache_{layer}")
        keys[:, :, start : start + self.owner.chunk] = key
        values[:, :, start : start + self.owner.chunk] = value
        return keys, values

    def get_seq_length(self, _layer: int = 0) -> int:
        return 0


class StatefulModel(nn.Module):
    """The traced module: ``(input_ids [1, T], position [1], last_index [1], per_layer_inputs [1, T, L, W], *matrices)``
    to logits ``[1, 1, V]``.

    `position` is the slot of the first token; `last_index` says which of the T tokens the logits follow, so that a
    short chunk is padded at its end (padding is masked for the real tokens and overwritten later). With T = 1 there
    is no `last_index`; `per_layer_inputs` are what the model's table says of the tokens, of a model that has one.
    """

    start: torch.Tensor
    last: torch.Tensor
    masks: Masks
    model: Any

    def __init__(
        self, model: Any, table: dict[str, torch.Tensor], names: tuple[str, ...], sizes: Sizes, rows: FedRows
    ) -> None:
        super().__init__()
        self.rows = rows
        self.model, self.table, self.names, self.sizes = model, table, names, sizes
        self.chunk, self.kept = 1, tuple(range(len(sizes.caches)))
        model.get_output_embeddings().register_forward_pre_hook(self.chosen)
        for layer, (heads, *dims) in enumerate(sizes.caches):
            for kind, dim in zip("kv", dims, strict=True):
                self.register_buffer(f"{kind}_cache_{layer}", torch.zeros(1, heads, sizes.slots, dim))

    def chosen(self, _head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """What the head is given: the hidden state of one token."""
        return (inputs[0].index_select(1, self.last),) if self.chunk > 1 else inputs

    def forward(self, input_ids: torch.Tensor, position: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        matrices = rest[1:] if self.chunk > 1 else rest
        if self.sizes.per_layer:
            self.rows.given, matrices = matrices[0], matrices[1:]
        self.table.update(zip(self.names, matrices, strict=True))
        self.start, self.last = position[0], rest[0]
        positions = position + torch.arange(self.chunk, dtype=torch.int32)
        self.masks = Masks(self.sizes, positions)
        return self.model(
            input_ids=input_ids, attention_mask=self.masks.within(None), position_ids=positions[None],
            past_key_values=StateCache(self), use_cache=True,
        ).logits  # fmt: skip


def stateful_model(quantized: Quantized, slots: int) -> tuple[StatefulModel, dict[str, tuple[int, ...]]]:
    """The module to trace, and the shapes ``[O, I]`` of the matrices it must be fed, by Hugging Face name.

    Raises UnsupportedModel for what the trace cannot hold (rotary scaling that depends on length, unknown norms).
    """
    config = load_config(quantized.directory)
    check_decoder(config, slots)
    outside, rows = open_table_of(quantized), FedRows()
    sizes = sizes_of(config, slots, outside)
    with registered_attention(Masks.none):
        model = empty_model(config, ATTENTION)
    table, shapes = dict[str, torch.Tensor](), fill(model, quantized)
    if outside is not None:
        model.set_submodule(outside.layout.parameter.removesuffix(".weight"), rows)
    refit(model, table, shapes, families.get(quantized.model_type), slots)
    return StatefulModel(model, table, tuple(shapes), sizes, rows).eval(), shapes


def fill(model: nn.Module, quantized: Quantized) -> dict[str, tuple[int, ...]]:
    """Set the small parameters; the shapes ``[O, I]`` of the matrices, which are left out, by Hugging Face name."""
    weights = open_weights(quantized.directory)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in weights:
        shape = weights.matrix_shape(name)
        if shape is None:
            set_parameter(model, name, torch.from_numpy(weights[name]))
        else:
            shapes[name] = shape
    return shapes


def sizes_of(config: Any, slots: int, table: Table | None = None) -> Sizes:
    """The static sizes of a config's graph with S = `slots`, per-layer inputs from `table`."""
    return Sizes(
        caches=cache_sizes(config), slots=slots, vocabulary=config.vocab_size,
        per_layer=None if table is None else (table.layout.layers, table.layout.width),
    )  # fmt: skip


def refit(
    model: nn.Module, table: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]], family: families.Family,
    slots: int,
) -> None:  # fmt: skip
    """Replace linear, embedding, norm and rotary modules in place. Raises UnsupportedModel for an unknown norm."""
    for path, module in list(model.named_modules()):
        name = f"{path}.weight"
        if isinstance(module, nn.Linear):
            model.set_submodule(path, FedLinear(table, name if name in shapes else family.embedding, module.bias))
        elif isinstance(module, nn.Embedding) and name in shapes:
            scale = embedding_scale(module) * family.residual_scale
            model.set_submodule(path, FedEmbedding(table, name, scale))
        elif is_rotary(module):
            model.set_submodule(path, RotaryTable(module, slots))
        elif is_norm(module) and not list(module.children()):
            model.set_submodule(path, refitted_norm(path, module, family))


def refitted_norm(path: str, module: nn.Module, family: families.Family) -> SafeNorm:
    """A norm that stays inside float16, for a residual stream that is `family.residual_scale` times the model's own."""
    facts, scale = norm_facts(module), family.residual_scale
    if path.endswith(family.residual_writers):
        return SafeNorm(facts, writes=scale)
    lists = (family.layers, family.layers.replace("decoder", "encoder"))  # an encoder-decoder has two
    inside = path.startswith(lists) and len(path.split(".")) > len(family.layers.split(".")) + 2  # q, k norms
    return SafeNorm(facts, reads=1.0 if inside else scale)
