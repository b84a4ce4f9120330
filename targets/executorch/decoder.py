"""Quantized → the decoder that is traced, and its exported program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from kobako.pipeline import families
from kobako.pipeline.contracts import ExportOptions, Quantized
from kobako.pipeline.reference.eager import empty_model, load_config, open_table_of, set_parameter
from kobako.pipeline.reference.layers import cut, plan
from kobako.pipeline.reference.structure import cache_sizes, embedding_scale, is_rotary
from kobako.pipeline.weights import QuantizedTensor
from torch import nn

from .cache import buffers
from .graph import Flat, flatten
from .mapped import map_weights
from .modules import (
    ATTENTION,
    ByteEmbedding,
    Decoder,
    DynamicLinear,
    GroupedEmbedding,
    HalfEmbedding,
    HalfLinear,
    RotaryTable,
    attention_function,
)
from .position import Position
from .pte import INSIDE
from .repeat import facts, repeated
from .rows import RowsEmbedding


def register_operators() -> None:
    """Load ExecuTorch's operators that live outside the core: ``llama::`` and ``quantized_decomposed::``."""
    import executorch.extension.llm.custom_ops.custom_ops
    import executorch.kernels.quantized  # noqa: F401
    import torch.ao.quantization.fx._decomposed  # noqa: F401


@contextmanager
def registered_attention(position: Position) -> Iterator[None]:
    """Within the block, transformers knows our attention function."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS[ATTENTION] = attention_function(position)
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[ATTENTION]


def build_model(quantized: Quantized, position: Position) -> Any:
    """The model with its linear layers, embedding and positions replaced by what the runtime will compute.

    Raises UnsupportedModel for rotary embeddings that depend on the length seen.
    """
    family = families.get(quantized.model_type)
    config = load_config(quantized.directory)
    model: Any = empty_model(config, ATTENTION)
    weights = map_weights(quantized)
    for name in weights:
        install(model, name, weights[name], is_embedding=name == family.embedding)
    if config.tie_word_embeddings:
        install(model, family.head, weights[family.embedding], is_embedding=False)
    if (outside := open_table_of(quantized)) is not None:
        model.set_submodule(outside.layout.parameter.removesuffix(".weight"), RowsEmbedding(outside))
    for path, module in list(model.named_modules()):
        if is_rotary(module):
            model.set_submodule(path, RotaryTable(module, position))
    return model


def install(model: nn.Module, name: str, value: Any, *, is_embedding: bool) -> None:
    """Put one stored parameter in its place, changing the module's class when it is quantized or float16."""
    path = name.rpartition(".")[0]
    module: Any = model.get_submodule(path)
    if isinstance(value, QuantizedTensor):
        table = GroupedEmbedding if value.shifts is not None else ByteEmbedding
        made: nn.Module = table(value, embedding_scale(module)) if is_embedding else DynamicLinear(value, module.bias)
    elif value.dtype == "float16":
        half = torch.from_numpy(value)
        made = HalfEmbedding(half, embedding_scale(module)) if is_embedding else HalfLinear(half, module.bias)
    else:
        set_parameter(model, name, torch.from_numpy(value))
        return
    model.set_submodule(path, made)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Arguments to trace with: tokens and the position of the first."""
    return torch.zeros((1, 3), dtype=torch.int64), torch.zeros(1, dtype=torch.int64)


def dynamic(context_tokens: int) -> Any:
    """Which dimensions of the arguments vary: the number of tokens, in 1…C."""
    return ({1: torch.export.Dim("length", min=1, max=context_tokens)}, {})


def export_decoder(decoder: Decoder) -> torch.export.ExportedProgram:
    """One non-strict export, the number of tokens dynamic."""
    with torch.no_grad():
        return torch.export.export(decoder, example(), dynamic_shapes=dynamic(decoder.context_tokens), strict=False)


def graph_of(quantized: Quantized, options: ExportOptions, *, probe: bool = False) -> tuple[Flat, int]:
    """The graph of a quantized model, and how many of its layers were traced: the others are copies of these.

    With `probe`, hidden states are outputs too, and every layer is traced. Raises UnsupportedModel.
    """
    register_operators()
    path = families.get(quantized.model_type).layers
    position = Position(options.context_tokens)
    with registered_attention(position):
        model = build_model(quantized, position)
        layers = model.get_submodule(path)
        if not probe and (part := plan(model.config, facts(layers))) is not None:
            named = [*model.named_parameters(), *model.named_buffers()]
            tensors = {f"{INSIDE}{name}": value.detach() for name, value in named}
            tensors |= dict(buffers(cache_sizes(model.config), position.slots, options.kv_cache))
            cut(model, path, part.traced)
            decoder = Decoder(model, position, options.kv_cache).eval()
            flat = repeated(flatten(export_decoder(decoder)), part, f"{INSIDE}{path}", tensors)
            if flat is not None:
                return flat, len(part.traced)
            model = build_model(quantized, position)
        decoder = Decoder(model, position, options.kv_cache).eval()
        decoder.probe = probe
        return flatten(export_decoder(decoder)), len(layers)
