"""Encoders in eager PyTorch: transformers' own code, and what stands behind its last layer.

Shape legend: T tokens of one text, H hidden size, E numbers of the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import families
from ..heads import Head

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MASKED = -10000.0
"""Added to the scores of tokens that are padding: exp() of it is 0 in float16 too, and it is no infinity."""
SMALLEST = 1e-4


def fold_groups(query: torch.Tensor, mask: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Query heads that share keys become rows of one head: ``[1, G·heads, T, D]`` → ``[1, heads, G·T, D]``.

    The mask ``[1, 1, 1 or T, …]`` follows them. Where no heads share any, both stay what they are.
    """
    groups = query.shape[1] // heads
    if groups == 1:
        return query, mask
    # by steps: of a whole reshape torch.export cannot tell the strides for all lengths of text
    rows = query.contiguous().unflatten(1, (heads, groups)).flatten(2, 3)
    return rows, mask if mask.shape[2] == 1 else mask.repeat(1, 1, groups, 1)


def unfold_groups(output: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """What `fold_groups` did to a query, undone for the attention's output."""
    heads, tokens = query.shape[1:3]
    if output.shape[1] == heads:
        return output
    return output.unflatten(2, (heads // output.shape[1], tokens)).flatten(1, 2)


def capped(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Scores s as ``softcap · tanh(s / softcap)``; as they are without a cap."""
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


class Bare(nn.Module):
    """A bare encoder under the name that checkpoints with a head give it: the hidden states of its last layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config, self.base = model.config, model.base_model_prefix
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # a layer behind the first token, which no embedding uses
        self.add_module(self.base, model)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """Token ids ``[1, T]`` → ``[1, T, H]``; `named` may tell their positions and types."""
        hidden: torch.Tensor = self.get_submodule(self.base)(
            input_ids=input_ids, attention_mask=attention_mask, **named
        ).last_hidden_state
        return hidden


def encoder_modules(config: PretrainedConfig, head: Head, attention: str | None) -> nn.Module:
    """The modules of an encoder with this head, parameters as the caller's context makes them, in eval mode."""
    from transformers import (
        AutoModel,
        AutoModelForMaskedLM,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    kinds = {
        "embed": AutoModel, "classify": AutoModelForSequenceClassification, "fill-mask": AutoModelForMaskedLM,
        "answer": AutoModelForQuestionAnswering, "tag": AutoModelForTokenClassification,
    }  # fmt: skip
    model = kinds[head.task].from_config(config, attn_implementation=attention, dtype=torch.float32)
    made: nn.Module = Bare(model) if head.task == "embed" else model
    return made.eval()


class Encoder(nn.Module):
    """``(ids [1, T], mask [1, T] of 0 and 1)`` → vector or logits ``[1, E]``.

    E is 2 · T for an answer's span, T · L for tags of L labels.

    With `additive` the model is handed the mask in the form its scores take, as a graph of its own computes it;
    otherwise transformers makes what it needs of it.
    """

    def __init__(self, model: nn.Module, head: Head, *, additive: bool = False) -> None:
        super().__init__()
        self.model, self.head, self.additive = model, head, additive
        config: Any = model.config
        self.family = families.get(config.model_type)
        self.first = families.first_position(self.family, vars(config))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen = mask.to(torch.float32)
        given = (1.0 - seen)[:, None, None, :] * MASKED if self.additive else mask
        if self.head.task == "fill-mask":
            return self.filled(ids, seen, given)
        found: Any = self.read(ids, given)
        if self.head.task == "answer":
            return torch.cat([found.start_logits, found.end_logits], dim=-1)
        if self.head.task == "tag":
            return found.logits.flatten(1)
        return pooled(found, seen, self.head) if self.head.task == "embed" else found.logits

    def read(self, ids: torch.Tensor, given: torch.Tensor) -> Any:
        """The model's output. Positions are told where it would count tokens that are no padding: here padding stands
        behind the text, wherever it is hidden by the mask."""
        if self.head.separator_id >= 0:
            return self.model(input_ids=ids, attention_mask=given, token_type_ids=self.types(ids))
        if not self.first:
            return self.model(input_ids=ids, attention_mask=given)
        places = torch.arange(ids.shape[1], dtype=ids.dtype)[None] + self.first
        return self.model(
            input_ids=ids, attention_mask=given, position_ids=places, token_type_ids=torch.zeros_like(ids)
        )

    def types(self, ids: torch.Tensor) -> torch.Tensor:
        """Token types ``[1, T]``: 1 behind the first separator. So a graph needs no third input."""
        place = torch.arange(ids.shape[1], dtype=torch.int32)
        earlier = (place[:, None] < place[None]).to(torch.float32)  # [T, T], row by column
        found = (ids == self.head.separator_id).to(torch.float32)
        return (torch.matmul(found, earlier) > 0.5).to(ids.dtype)

    def filled(self, ids: torch.Tensor, seen: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        """Logits ``[1, V]`` of the one masked token: its hidden state alone goes through the head."""
        place = (seen * (ids == self.head.mask_id).to(torch.float32))[:, None]  # [1, 1, T]

        def chosen(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (torch.matmul(place, inputs[0]),)

        handle = self.model.get_submodule(self.family.filler).register_forward_pre_hook(chosen)
        try:
            logits: torch.Tensor = self.read(ids, given).logits
        finally:
            handle.remove()
        return logits[:, 0]


def shared_biases(model: nn.Module) -> dict[str, str]:
    """Biases that are another one's parameter: their name → the name under which it is stored."""
    first: dict[int, str] = {}
    shared: dict[str, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(parameter), name)
        if known != name and parameter.dim() == 1:
            shared[name] = known
    return shared


def restore_biases(model: nn.Module, shared: Mapping[str, str]) -> None:
    """Make biases one parameter again, after that was set under the name it is stored under."""
    for name, source in shared.items():
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, model.get_parameter(source))


def pooled(hidden: torch.Tensor, seen: torch.Tensor, head: Head) -> torch.Tensor:
    """Hidden states ``[1, T, H]`` and the mask ``[1, T]`` → the vector ``[1, H]``; no sum leaves float16's range."""
    if head.pooling == "cls":
        rows = hidden[:, 0]
    else:
        share = seen / seen.sum(-1, keepdim=True)
        rows = torch.matmul(share[:, None], hidden)[:, 0]
    if head.normalize:
        rows = rows / rows.abs().amax(-1, keepdim=True).clamp(min=SMALLEST)
        rows = rows * torch.rsqrt((rows * rows).sum(-1, keepdim=True).clamp(min=SMALLEST))
    return rows
