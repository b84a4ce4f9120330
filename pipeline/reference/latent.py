"""Multi-head latent attention (arXiv:2405.04434, section 2.1) over a cache of keys and values.

transformers caches the latent vectors and expands those of all slots anew for every token. Here each token's keys and
values are expanded once, when it is read, and the cache holds them: the same numbers, a larger cache, and attention
that every runtime has. Keys are longer than values.

Shape legend: B batch, T tokens, N heads, P and R the parts of a key without and with rotation, E a value's dimension.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.minicpm3.modeling_minicpm3 import (
    MiniCPM3Attention,
    apply_rotary_pos_emb,
    eager_attention_forward,
)


class ExpandedAttention(MiniCPM3Attention):
    """MiniCPM3's attention whose cache holds what it attends to: keys ``[B, N, T, P + R]``, values ``[B, N, T, E]``."""

    def forward(
        self, hidden_states: torch.Tensor, position_embeddings: Any, attention_mask: Any, cache: Any, **named: Any
    ) -> tuple[torch.Tensor, Any]:
        """``[B, T, hidden]`` → the same, and the attention weights where the implementation gives them."""
        shape, key_parts = hidden_states.shape[:-1], [self.qk_nope_head_dim, self.qk_rope_head_dim]
        query = self.queries(hidden_states).view(*shape, self.num_heads, -1).transpose(1, 2)
        query, turned = query.split(key_parts, dim=-1)
        latent, shared = self.kv_a_proj_with_mqa(hidden_states).split(
            [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1
        )
        shared = shared.view(*shape, 1, -1).transpose(1, 2)
        turned, shared = apply_rotary_pos_emb(turned, shared, *position_embeddings)
        both = self.kv_b_proj(self.kv_a_layernorm(latent)).view(*shape, self.num_heads, -1).transpose(1, 2)
        key, value = both.split([self.qk_nope_head_dim, self.v_head_dim], dim=-1)
        key = torch.cat([key, shared.expand(-1, self.num_heads, -1, -1)], dim=-1)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        query = torch.cat([query, turned], dim=-1)
        output, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, **named)
        return self.o_proj(output.reshape(*shape, -1)), weights

    def queries(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[B, T, hidden]`` → ``[B, T, N · (P + R)]``, through a latent vector of their own where there is one."""
        if self.q_lora_rank is None:
            return self.q_proj(hidden_states)
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden_states)))


def expand_latents(model: nn.Module) -> None:
    """Replace every latent attention; the new modules' parameters are made as the caller's context makes them."""
    for path, module in list(model.named_modules()):
        if isinstance(module, MiniCPM3Attention):
            model.set_submodule(path, ExpandedAttention(module.config, module.layer_idx))
