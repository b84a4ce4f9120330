"""What a target fulfils: how artifacts are written, run, read back and looked into.

Shapes as in `contracts`: T tokens, V vocabulary, H key/value heads, D head dimension, O / I outputs and inputs of a
linear layer, G groups of inputs that share a scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .contracts import Activations, Exported, ExportOptions, FloatArray, KvCache, Progress, Quantized, Recipe

OnText = Callable[[str], bool | None]
"""Receives a piece of an answer; true ends the answer."""


@dataclass(frozen=True, kw_only=True)
class StoredWeight:
    """One quantized weight as read back out of an artifact.

    Attributes:
        name: the Hugging Face parameter name, e.g. ``model.layers.0.mlp.up_proj.weight``.
        codes: int8 ``[O, I]`` (int4 codes unpacked), or float16/float32 ``[O, I]`` when the recipe is float16.
        scales: float32 ``[O, G]``, or None when the recipe is float16.
        offsets: of asymmetric blocks, float16 ``[O, G]``, else None: value = (code + offset) × scale.
    """

    name: str
    codes: npt.NDArray[Any]
    scales: FloatArray | None
    offsets: npt.NDArray[np.float16] | None = None


@dataclass(frozen=True, kw_only=True)
class KvCost:
    """Bytes of a KV cache: of each value, and of what stands beside each head's vector."""

    value_bytes: int
    vector_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What an engine said, and how long it took.

    Attributes:
        token_ids: of the answer, or None when the engine tells only text.
        prefill_s: seconds from the call to the first token.
        decode_s: seconds from the first token to the last.
    """

    text: str
    token_ids: tuple[int, ...] | None
    prompt_tokens: int
    generated_tokens: int
    prefill_s: float
    decode_s: float


@runtime_checkable
class Runtime(Protocol):
    """An artifact loaded in its real runtime, at the level of logits. Position is kept inside."""

    def reset(self) -> None:
        """Forget everything fed so far."""

    def feed(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens; logits ``[V]`` float32 that follow the last of them.

        One id goes through decode, several through prefill (in chunks, if the target needs that).
        Raises UsageError when the context would be exceeded.
        """
        ...

    def close(self) -> None:
        """Give everything back."""


@runtime_checkable
class Abreast(Protocol):
    """A Runtime that takes several decode steps faster together than one after the other."""

    def feed_each(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens, each through decode; logits ``[N, V]`` float32 after each: those that `feed` would give."""
        ...


@runtime_checkable
class LayerProbe(Protocol):
    """A Runtime that can also show its KV cache, so that the first departing layer can be named."""

    def key_cache(self, layer: int) -> FloatArray:
        """Keys of `layer` for the tokens fed so far, after rotary embedding: ``[T, H, D]``."""
        ...


@runtime_checkable
class Engine(Protocol):
    """An artifact in the engine an app would use: text in, text out, greedy."""

    @property
    def name(self) -> str:
        """What runs it, with its version; says ``interpreter`` where that is what it is."""
        ...

    def generate(self, prompt: str, max_new_tokens: int, on_text: OnText) -> Generation:
        """Continue `prompt`, an already rendered template, until a stop token or `max_new_tokens`.

        `on_text` receives each piece of text as it is decoded, and ends the answer by returning true. Stops by the
        artifact's own stop tokens.
        """
        ...

    def close(self) -> None:
        """Give everything back."""


class EncoderRuntime(Protocol):
    """An encoder's artifact loaded in its real runtime: token ids in, one vector or the logits of labels out."""

    @property
    def name(self) -> str:
        """What runs it, with its version; says ``interpreter`` where that is what it is."""
        ...

    def encode(self, ids: Sequence[int], mask: Sequence[int]) -> FloatArray:
        """The answer ``[E]`` float32 to the tokens whose `mask` is 1; those with 0 are padding behind them.

        Raises UsageError for no tokens, or more than the artifact holds.
        """
        ...

    def close(self) -> None:
        """Give everything back."""


class Seq2SeqSteps(Protocol):
    """An encoder-decoder's artifact loaded in its real runtime: its two functions, caches kept between calls."""

    @property
    def name(self) -> str:
        """What runs it, with its version; says ``interpreter`` where that is what it is."""
        ...

    def read(self, ids: Sequence[int], mask: Sequence[int]) -> None:
        """Run the encoder over a source, 1 to as many tokens as the artifact holds; `mask` is 0 for padding."""
        ...

    def step(self, token: int, position: int) -> FloatArray:
        """Logits ``[V]`` that follow `token`, the answer's token at `position`; those before it were given already."""
        ...

    def close(self) -> None:
        """Give everything back."""


class Target(Protocol):
    """One format kobako writes. Each target folder's ``__init__`` holds one instance, called TARGET.

    Importing the folder imports no vendor package: methods do, when called.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str:
        """For people: ``ExecuTorch``."""
        ...

    @property
    def vendor_modules(self) -> tuple[str, ...]:
        """Import names of the vendor packages needed, checked with find_spec."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the files (or directories) that `inspect` reads: ``(".pte",)``."""
        ...

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of the recipes this target can hold."""
        ...

    @property
    def kv_caches(self) -> Mapping[KvCache, KvCost]:
        """The KV caches this target can have, and what each takes."""
        ...

    @property
    def relative_cost(self) -> float:
        """Export time in arbitrary units: the costliest target is started first."""
        ...

    @property
    def interpreted(self) -> bool:
        """Whether artifacts run in an interpreter of kobako's own, whose speed says nothing about a phone's."""
        ...

    def activations(self, recipe: Recipe) -> Activations:
        """What an artifact of this recipe computes activations in."""
        ...

    def export(self, quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
        """Write the artifact into the existing, empty directory `out`.

        Raises UnsupportedModel or UnsupportedRecipe when the target cannot hold it.
        """
        ...

    def runtime(self, exported: Exported) -> Runtime:
        """Load the artifact in its real runtime. Raises BadArtifact."""
        ...

    def engine(self, exported: Exported) -> Engine:
        """Load the artifact in the engine that apps use. Raises BadArtifact."""
        ...

    def encoder(self, exported: Exported) -> EncoderRuntime:
        """Load an encoder's artifact in its real runtime. Raises BadArtifact."""
        ...

    def seq2seq(self, exported: Exported) -> Seq2SeqSteps:
        """Load an encoder-decoder's artifact in its real runtime. Raises BadArtifact."""
        ...

    def stored_weights(self, exported: Exported) -> Iterator[StoredWeight]:
        """Every quantized weight read back out of the artifact's own bytes, one at a time."""
        ...

    def inspect(self, path: Path) -> Mapping[str, Any]:
        """What is inside one of this target's files: JSON values. Raises BadArtifact."""
        ...
