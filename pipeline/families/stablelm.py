"""StableLM 2 and StableLM 3B (arXiv:2402.17834): LayerNorm, partial rotary, on request a parallel residual."""

from . import Family

# With a parallel residual one norm feeds attention and feed-forward alike, without it two do: neither may be smoothed
# by a rule that holds for both.
FAMILY = Family(model_type="stablelm", feeds={"mlp.up_proj": ("mlp.down_proj",)})
