"""Eager PyTorch models made of a config and a set of tensors, without a second copy of the weights.

The original model and the quantized reference are the same modules with other numbers in them; targets start from
the same function, so that what is exported and what is compared cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import families
from ..codec import read_json
from ..contracts import FloatArray, Quantized
from ..embeddings import TABLE_FILE, Table, open_table
from ..heads import Head, find_head, reads_table
from ..weights import open_weights
from .modeling import own_class
from .residence import EVERYTHING, Budget, Residence
from .shifted import shift_linears, symmetric_rows, value_rows
from .structure import embedding_scale

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

ReadRows = Callable[[npt.NDArray[np.int64]], FloatArray]
"""Token ids ``[N]`` → their rows of a table, float32 ``[N, L·D]``."""


def load_config(directory: Path) -> PretrainedConfig:
    """The Hugging Face config in `directory`, read locally, no remote code."""
    from transformers import AutoConfig

    own = own_class(read_json(directory / "config.json")["model_type"])
    kind = AutoConfig if own is None else own.config_class
    config: PretrainedConfig = kind.from_pretrained(directory, local_files_only=True)
    if config.is_encoder_decoder:  # T5's says that its head is tied whatever the file says
        config.tie_word_embeddings = bool(read_json(directory / "config.json").get("tie_word_embeddings", True))
    return config


def empty_model(config: PretrainedConfig, attention: str | None = None) -> PreTrainedModel:
    """A causal language model whose parameters are on the meta device and whose buffers are real, in eval mode.

    `attention` names an implementation registered with transformers' AttentionInterface; without one, transformers
    takes its own best.
    """
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    from .latent import expand_latents

    own = own_class(config.model_type)
    make = AutoModelForCausalLM.from_config if own is None else own._from_config
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = make(config, attn_implementation=attention, dtype=torch.float32)
        if getattr(config, "kv_lora_rank", None):
            expand_latents(model)
    plain_linears(model)
    stored_buffers(model)
    constant_sparsity(model)
    model.tie_weights()
    return model.eval()


def stored_buffers(model: nn.Module) -> None:
    """Make parameters of the buffers that a checkpoint stores (Gemma 4's scale of each layer): they are weights too."""
    import torch
    from torch import nn

    stored = model.state_dict().keys()
    for name, buffer in list(model.named_buffers()):
        if name in stored:
            set_parameter(model, name, nn.Parameter(torch.empty_like(buffer, device="meta"), requires_grad=False))


def constant_sparsity(model: nn.Module) -> None:
    """Put a number where Gemma 3n computes one: how many deviations above the mean a sparse activation begins.

    It is a quantile of the normal distribution for a share that the config names; no target has an operator for it.
    """
    import statistics

    from torch import nn

    def sparse(deviations: float) -> Callable[[torch.Tensor], torch.Tensor]:
        def activations_above(inputs: torch.Tensor) -> torch.Tensor:
            centred = inputs - inputs.mean(dim=-1, keepdim=True)
            deviation = centred.pow(2).mean(dim=-1, keepdim=True).sqrt()
            return nn.functional.relu(centred - deviation * deviations)

        return activations_above

    found: list[Any] = [module for module in model.modules() if hasattr(module, "_gaussian_topk")]
    for module in found:
        if module.activation_sparsity > 0.0:
            module._gaussian_topk = sparse(statistics.NormalDist().inv_cdf(module.activation_sparsity))


def empty_encoder(config: PretrainedConfig, head: Head, attention: str | None = None) -> nn.Module:
    """The same of an encoder, its parameters named as checkpoints with a head name them."""
    from accelerate import init_empty_weights

    from .encoder import encoder_modules

    with init_empty_weights(include_buffers=False):
        model = encoder_modules(config, head, attention)
    tie(model)
    return model


def empty_seq2seq(config: PretrainedConfig, attention: str | None = None) -> Any:
    """The same of an encoder-decoder with its head."""
    from accelerate import init_empty_weights

    from .seq2seq import seq2seq_modules

    with init_empty_weights(include_buffers=False):
        model = seq2seq_modules(config, attention)
    stored_buffers(model)
    tie(model)
    return model


def empty_model_in(directory: Path, attention: str | None = None) -> Any:
    """The empty model of any kind that a Reference's or a Quantized's directory describes."""
    config, head = load_config(directory), find_head(directory)
    if config.is_encoder_decoder:
        return empty_seq2seq(config, attention)
    return empty_model(config, attention) if head is None else empty_encoder(config, head, attention)


def plain_linears(model: nn.Module) -> None:
    """Replace GPT-2's Conv1D, a linear layer that keeps its matrix transposed, by the linear layer that it is."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for path, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            inputs, outputs = module.weight.shape
            model.set_submodule(path, nn.Linear(inputs, outputs, device="meta"))


def set_parameter(model: nn.Module, name: str, value: torch.Tensor) -> None:
    """Replace the parameter `name` by a constant one holding `value`."""
    from torch import nn

    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    setattr(module, leaf, nn.Parameter(value, requires_grad=False))


def tie(model: Any) -> None:
    """Let a head that is the embedding's table be that table again; a bare encoder has no head to tie."""
    if hasattr(model, "tie_weights"):
        model.tie_weights()


def read_ids(model: Any, ids: list[int], *, whole_head: bool = False) -> None:
    """Let a model read one sequence, for those who watch its modules; the head sees the last token, or all."""
    import torch

    tokens = torch.tensor([ids])
    if families.get(model.config.model_type).kind == "encoder":
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    else:
        # logits of all tokens would take gigabytes; with a plain 1, Gemma's layers without keys of their own would
        # see the last token only
        model(tokens, use_cache=False, logits_to_keep=0 if whole_head else torch.tensor([-1]))


def quantized_model(quantized: Quantized, attention: str | None = None, budget: Budget = EVERYTHING) -> Any:
    """The quantized reference: dequantized weights in float32 PyTorch; a PreTrainedModel, or a bare encoder.

    Weights beyond the `budget` are read when they are needed.
    """
    model = empty_model_in(quantized.directory, attention)
    if (table := open_table_of(quantized)) is not None:
        look_up_outside(model, table.layout.parameter, lambda ids: table.rows(ids).reshape(len(ids), -1))
    weights = open_weights(quantized.directory)
    family = families.get(quantized.model_type)
    reads = reads_table(family, find_head(quantized.directory))
    tied = {reads: family.embedding} if model.config.tie_word_embeddings else {}
    shifted = shift_linears(model, weights, tied)
    model.residence = residence = Residence(model, budget, row_by_row=True)
    for name in (*shifted, *(name for name in weights if name not in shifted)):
        residence.put(
            name, partial(symmetric_rows if name in shifted else value_rows, weights, shifted.get(name, name))
        )
    return model


def open_table_of(quantized: Quantized) -> Table | None:
    """The per-layer table of a Quantized, mapped; None when its model has none."""
    path = quantized.directory / TABLE_FILE
    return open_table(path) if path.exists() else None


def look_up_outside(model: nn.Module, parameter: str, read: ReadRows) -> None:
    """Replace the embedding of `parameter` by one that reads the rows it is asked for with `read`, when it is asked."""
    import torch
    from torch import nn

    path = parameter.removesuffix(".weight")
    scale = embedding_scale(model.get_submodule(path))

    class OutsideEmbedding(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:  # [...] -> [..., L·D]
            rows = torch.from_numpy(np.ascontiguousarray(read(ids.reshape(-1).numpy())))
            return rows.reshape(*ids.shape, -1) * scale

    model.set_submodule(path, OutsideEmbedding())


@contextmanager
def dynamic_int8_activations(model: nn.Module) -> Iterator[None]:
    """Within the block, every linear layer sees its input rounded to asymmetric int8 per token.

    This is XNNPACK's ``qd8`` scheme, which both ExecuTorch and LiteRT run: 255 steps over the token's range,
    the range widened to contain zero.
    """
    from torch import nn

    def round_input(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (fake_int8_per_token(inputs[0]), *inputs[1:])

    linears: list[Any] = [module for module in model.modules() if isinstance(module, nn.Linear)]
    shifted = [module for module in linears if hasattr(module, "shifts")]
    handles = [module.register_forward_pre_hook(round_input) for module in linears]
    for module in shifted:
        module.round_sums = fake_int8_per_token  # the sums are the input of a second int8 layer
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in shifted:
            del module.round_sums


def fake_int8_per_token(x: torch.Tensor) -> torch.Tensor:
    """Asymmetric int8 rounding of the last axis' rows, and back: ``[..., I]`` to ``[..., I]`` float32.

    Step by step as XNNPACK computes it (``xnn_f32_qd8_asymmetric_quantization_params``): it multiplies by steps per
    unit where dividing by the step would round the last bit otherwise, and that bit decides where a value falls.
    """
    import torch

    low = x.amin(dim=-1, keepdim=True).clamp(max=0.0)
    high = x.amax(dim=-1, keepdim=True).clamp(min=0.0)
    steps = torch.where(high == low, torch.ones_like(high), 255.0 / (high - low))
    below, above = -128 - low * steps, 127 - high * steps
    zero = torch.where((low * steps - 128) + (high * steps + 127) > 0, below, above).clamp(-128, 127).round()
    codes = torch.clamp(torch.round(x * steps) + zero, -128, 127)
    return (codes - zero) * (1.0 / steps)
