"""OpenELM (Apple, arXiv:2404.14619): llama whose layers have widths and numbers of heads of their own.

What else differs from llama (section 2.1 of the paper): queries, keys and values come out of one projection; queries
and keys are normalized per head (RMSNorm with a weight of head_dim) before the rotation; gate and up are one matrix.

Shape legend: B batch, T tokens, N query heads, H key/value heads, D head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
    LlamaPreTrainedModel,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.models.phi3.modeling_phi3 import Phi3MLP


@strict
class OpenELMConfig(LlamaConfig):
    """Llama's configuration; ``per_layer_config`` holds each layer's heads and width."""

    model_type = "openelm"
    normalize_qk_projections: bool = True

    def validate_architecture(self) -> None:
        """Nothing: here the heads' dimensions need not add up to the hidden size."""


class OpenELMAttention(nn.Module):
    """Grouped-query attention of one layer, with as many heads as this layer has."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx, self.head_dim = config, layer_idx, int(config.head_dim)
        heads, shared = int(config.num_attention_heads), int(config.num_key_value_heads)
        self.heads = [heads, shared, shared]
        self.num_key_value_groups, self.scaling, self.is_causal = heads // shared, self.head_dim**-0.5, True
        self.qkv_proj = nn.Linear(config.hidden_size, sum(self.heads) * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, config.hidden_size, bias=False)
        normalized = config.normalize_qk_projections
        self.q_norm = LlamaRMSNorm(self.head_dim, config.rms_norm_eps) if normalized else nn.Identity()
        self.k_norm = LlamaRMSNorm(self.head_dim, config.rms_norm_eps) if normalized else nn.Identity()

    def forward(
        self, hidden_states: torch.Tensor, position_embeddings: Any, attention_mask: Any, cache: Any, **named: Any
    ) -> tuple[torch.Tensor, Any]:
        """``[B, T, hidden]`` → the same, and the attention weights where the implementation gives them."""
        shape = hidden_states.shape[:-1]
        parts = self.qkv_proj(hidden_states).view(*shape, -1, self.head_dim).split(self.heads, dim=2)
        query, key, value = parts[0], parts[1], parts[2].transpose(1, 2)
        query, key = self.q_norm(query).transpose(1, 2), self.k_norm(key).transpose(1, 2)  # [B, N, T, D], [B, H, T, D]
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, **named)
        return self.o_proj(output.reshape(*shape, -1)), weights


class OpenELMLayer(LlamaDecoderLayer):
    """Llama's layer around this attention and a feed-forward block of this layer's width."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.self_attn = OpenELMAttention(config, layer_idx)
        self.mlp = Phi3MLP(config)  # down(act(gate) · up) with gate and up in one matrix, in this order


class OpenELMModel(LlamaModel):
    """Llama's model with layers that differ."""

    config_class = OpenELMConfig

    def __init__(self, config: Any) -> None:
        LlamaPreTrainedModel.__init__(self, config)  # LlamaModel's own would make layers that are all the same
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(OpenELMLayer(one, index) for index, one in enumerate(config.per_layer_config))
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()


class OpenELMForCausalLM(LlamaForCausalLM):
    """OpenELM with its head, which mostly is the embedding's table."""

    config_class = OpenELMConfig

    def __init__(self, config: Any) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.model = OpenELMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


MODEL = OpenELMForCausalLM
