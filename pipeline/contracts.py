"""The frozen values that pass between rooms.

Everything here is small, immutable and JSON-able: the heavy data lies in the directories that the values
point to, so that each stage may run in a process of its own.

Shape legend: B batch (always 1), T tokens, V vocabulary, L layers, H key/value heads, D head dimension,
S slots of the KV cache (= the context length), O / I a linear layer's outputs / inputs, G = I / group_size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]

Progress = Callable[[float, str], None]
"""Called with a fraction in 0…1 and a few words; must be cheap and must never raise."""

ModelKind = Literal["decoder", "encoder", "seq2seq"]
"""A decoder continues text, token by token; an encoder reads all of it and answers with a vector or with labels; a
seq2seq model has an encoder that reads a text and a decoder that writes another, looking at it."""

Activations = Literal["float32", "float16", "int8-dynamic"]
"""What a target computes activations in. ``int8-dynamic``: asymmetric int8 per token, before each linear layer."""

KvCache = Literal["float", "int8"]
"""How keys and values are kept: in the target's own float type, or in int8 per token and head with step and zero."""


def no_progress(fraction: float, text: str) -> None:
    """A Progress for callers that show none."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One downloaded file: its path inside the source directory, its size and its SHA-256."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model as it was obtained: files on disk whose digests are known.

    Attributes:
        name: a slug fit for file names, such as ``smollm2-135m-instruct``.
        origin: where it came from, as a URL-like string with no secrets in it.
        revision: a commit, a package version or a digest; never a branch name.
        directory: where the files lie.
        format: ``safetensors`` (a Hugging Face directory) or ``gguf`` (one file).
        licence: SPDX identifier, or the licence's name when it has none.
        adapter: a LoRA adapter to be merged into the weights.
        slice: the nested model to take out of it (`kobako.pipeline.reference.slices`); empty = all of it.
    """

    name: str
    origin: str
    revision: str
    directory: Path
    files: tuple[SourceFile, ...]
    format: Literal["safetensors", "gguf"]
    licence: str
    adapter: Source | None = None
    slice: str = ""

    @property
    def all_files(self) -> tuple[SourceFile, ...]:
        """The files, and those of the adapter under a folder of their own."""
        mine = self.adapter.files if self.adapter else ()
        return (*self.files, *(replace(file, path=f"adapter/{file.path}") for file in mine))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A model ready to be read tensor by tensor, with its tokenizer in Hugging Face form.

    The directory holds ``config.json``, ``generation_config.json``, ``tokenizer/tokenizer.json`` and
    ``tokenizer/tokenizer_config.json`` (chat template inside). The weights stay in the Source's files.
    """

    name: str
    directory: Path
    source: Source
    model_type: str

    @property
    def tokenizer_dir(self) -> Path:
        return self.directory / "tokenizer"


Rounding = Literal["nearest", "gptq", "tuned"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How weights are stored. One recipe serves all targets.

    Attributes:
        name: a name of RECIPES.
        weight_bits: of the linear layers inside the decoder: 16, 8 or 4.
        group_size: inputs per scale; None = one scale per output channel.
        embedding_bits: of the token embedding's rows, and of the head: 16, 8 (a scale per row) or 4 (in groups).
        smoothing: how much of the activations' outliers moves into the weights (`kobako.pipeline.smooth`); 0 = none.
        rounding: ``nearest`` (symmetric), or ``gptq``: 4-bit tensors get asymmetric blocks, fitted and rounded so that
            the outputs on the calibration text change least (`kobako.pipeline.gptq`); ``tuned``: so as well, and then
            the codes of each layer are moved together by gradients (`kobako.pipeline.tune`), which takes minutes.
        wide: parameters kept in 8 bits although `weight_bits` or `embedding_bits` is 4, by name.
        loss_limit_nats: the mean KL to the original that the user allows; None = the recipe's usual gate.
        calibration_sha256: of the user's own calibration text; None = kobako's.
    """

    name: str
    weight_bits: Literal[4, 8, 16]
    group_size: int | None
    embedding_bits: Literal[4, 8, 16]
    smoothing: float = 0.0
    rounding: Rounding = "nearest"
    wide: tuple[str, ...] = ()
    loss_limit_nats: float | None = None
    calibration_sha256: str | None = None

    @property
    def calibrated(self) -> bool:
        """Whether quantizing reads a calibration text."""
        return self.smoothing > 0.0 or self.asymmetric

    @property
    def asymmetric(self) -> bool:
        """Whether 4-bit tensors have asymmetric blocks."""
        return self.rounding != "nearest"


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="float16", weight_bits=16, group_size=None, embedding_bits=16),
        Recipe(name="int8", weight_bits=8, group_size=None, embedding_bits=8, smoothing=0.4),
        Recipe(name="int4", weight_bits=4, group_size=32, embedding_bits=8, smoothing=0.4, rounding="gptq"),
        Recipe(name="int4-small", weight_bits=4, group_size=32, embedding_bits=4, smoothing=0.4, rounding="gptq"),
        Recipe(name="int4-nearest", weight_bits=4, group_size=32, embedding_bits=8, smoothing=0.5),
    )
}


DEFAULT_RECIPE = "int4"
"""The smallest whose answers a person takes for the original's."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """Integer codes and scales of a whole model, the same for every target.

    The directory holds ``weights.safetensors`` (see `kobako.pipeline.weights`), and copies of
    ``config.json``, ``generation_config.json`` and ``tokenizer/``: all a target needs.
    """

    name: str
    directory: Path
    recipe: Recipe
    model_type: str

    @property
    def tokenizer_dir(self) -> Path:
        return self.directory / "tokenizer"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What the user decides about an artifact.

    Attributes:
        context_tokens: slots of the KV cache: prompt and answer together.
        prefill_tokens: the chunk length of prefill, where the target needs a static one.
        kv_cache: how keys and values are kept.
    """

    context_tokens: int = 1024
    prefill_tokens: int = 128
    kv_cache: KvCache = "float"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What a target made: a directory complete in itself.

    Attributes:
        target: the target's name.
        directory: holds `files` and nothing else that ships.
        files: paths inside the directory; a ``.mlpackage`` counts as its files.
        activations: what the artifact computes activations in.
        context_tokens: slots of the KV cache.
        kv_cache: how keys and values are kept in it.
        details: figures and facts of the target's own for manifest and report, JSON values only.
        kind: whether it continues text or answers with a vector or labels.
        table: name of the embedding table that the artifact is fed from; it lies beside the artifact or, in a package,
            one folder up, where all targets share it. None when nothing is read from outside.
    """

    target: str
    directory: Path
    files: tuple[str, ...]
    activations: Activations
    context_tokens: int
    kv_cache: KvCache = "float"
    kind: ModelKind = "decoder"
    details: Mapping[str, Any] = field(default_factory=dict)
    table: str | None = None


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """What artifacts of one Quantized must say, computed once in PyTorch; the data lie in `directory`.

    ``ids.npy`` int32 ``[W, T]``: windows of the proof text. ``logits-KIND.npy`` float32 ``[W, T, V]`` and
    ``keys-KIND.npy`` float32 ``[L, K, H, D]`` (the key cache after the first K tokens of the first window), for each
    kind of reference asked for (`kobako.pipeline.standard`). ``expect.json``: prompts, greedy continuations, quality.
    """

    directory: Path
    activations: tuple[Activations, ...]
    kv_cache: KvCache = "float"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One gate of the proof: what was measured, what was demanded, and whether it holds.

    Attributes:
        part: ``weights``, ``fidelity``, ``quality`` or ``behaviour``.
        name: such as ``decode KL``.
        value: what was measured, for people, unit included.
        demand: the gate, for people.
        detail: what a failing check's reader should know next; may be empty.
    """

    part: Literal["weights", "fidelity", "quality", "behaviour"]
    name: str
    value: str
    demand: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The proof of one artifact. It passes when every check does.

    Attributes:
        figures: the numbers behind the checks, JSON values: see `kobako.pipeline.validate`.
    """

    target: str
    recipe: str
    activations: Activations
    checks: tuple[Check, ...]
    figures: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How an artifact behaves in its engine on this machine.

    Attributes:
        engine: name and version of what ran it.
        first_token_s: of an encoder: the first answer.
        decode_tokens_per_s: None for an encoder, which decodes nothing.
        bandwidth_share: decode speed × bytes of weights read per token ÷ measured memory bandwidth; None as well.
    """

    target: str
    engine: str
    load_s: float
    first_token_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float | None
    peak_rss_bytes: int
    bandwidth_share: float | None
    threads: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """A prompt builder that is data: the same for ``kobako run``, the proof and the phone app.

    Attributes:
        messages: chat messages with ``{text}``, ``{source}`` and ``{target}`` in them, or empty.
        prompt: a plain prompt with the same fields, for base models; exactly one of the two is given.
        stop: strings that end the answer, besides the model's stop tokens.
        languages: BCP 47 codes the task is good for; empty = not tied to languages.
        fills: by target language, more fields of the template; when there are any, one of them must be chosen.
        sources: by source language, the field ``source`` of the template, where it is not English.
        max_new_tokens: of an answer; 0 where none is generated.
        output: what comes back: generated text, an encoder's vector, labels with their probabilities, the span of a
            passage that answers a question, or the words of a text that have labels.
    """

    name: str
    messages: tuple[Mapping[str, str], ...] = ()
    prompt: str = ""
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 128
    languages: tuple[str, ...] = ()
    fills: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    output: Literal["text", "vector", "labels", "span", "tags"] = "text"
