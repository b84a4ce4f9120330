"""What an artifact is held against: the full logits at build time, or the golden file of a package, however old.

A golden file keeps, for each position, the TOP most likely tokens and their log-probabilities. The divergence over
these and one bucket for all other tokens never exceeds the full one (data-processing inequality): it can only be
milder.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from .codec import read_json, write_json
from .contracts import Activations, Expectations, FloatArray, KvCache, Recipe
from .errors import BadArtifact
from .logits import LogitsFile, Rows, batches
from .metrics import kl_nats, log_softmax

TOP = 64
Kind = Literal["float", "int8-dynamic", "float-kv8", "int8-dynamic-kv8"]
"""Which PyTorch model: activations in float or rounded to int8, and with ``-kv8`` a cache that is rounded as well."""


def kind_of(activations: Activations, kv_cache: KvCache = "float") -> Kind:
    """Which PyTorch model stands for an artifact: float16 and float32 artifacts are held against the same one."""
    if kv_cache == "int8":
        return "int8-dynamic-kv8" if activations == "int8-dynamic" else "float-kv8"
    return "int8-dynamic" if activations == "int8-dynamic" else "float"


def rounds_activations(kind: Kind) -> bool:
    """Whether that model rounds the inputs of its linear layers."""
    return kind.startswith("int8-dynamic")


def cache_of(kind: Kind) -> KvCache:
    """How that model keeps keys and values."""
    return "int8" if kind.endswith("-kv8") else "float"


class Divergence(Protocol):
    """Compares logits with what was expected at a position of the proof text."""

    def kl(self, window: int, positions: Sequence[int], logits: FloatArray) -> FloatArray:
        """KL divergence in nats of each position ``[N]``; `logits` is ``[N, V]``."""
        ...

    def best(self, window: int, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        """The expected most likely token of each position ``[N]``."""
        ...


@dataclass(frozen=True)
class FullLogits:
    """Every logit of the quantized reference: ``[W, T, V]``."""

    logits: Rows

    def kl(self, window: int, positions: Sequence[int], logits: FloatArray) -> FloatArray:
        return kl_nats(np.asarray(self.logits[window, list(positions)]), logits)

    def best(self, window: int, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        best: npt.NDArray[np.int64] = np.asarray(self.logits[window, list(positions)]).argmax(axis=-1)
        return best


@dataclass(frozen=True)
class TopLogits:
    """The most likely tokens ``[W, T, TOP]`` and their log-probabilities."""

    ids: npt.NDArray[np.int32]
    log_probabilities: FloatArray

    def kl(self, window: int, positions: Sequence[int], logits: FloatArray) -> FloatArray:
        chosen = self.ids[window, list(positions)].astype(np.int64)
        expected = self.log_probabilities[window, list(positions)]
        actual = np.take_along_axis(log_softmax(logits), chosen, axis=-1)
        rest_p, rest_q = (np.maximum(1.0 - np.exp(part).sum(axis=-1), 1e-9) for part in (expected, actual))
        inside = (np.exp(expected) * (expected - actual)).sum(axis=-1)
        result: FloatArray = np.maximum(inside + rest_p * np.log(rest_p / rest_q), 0.0)
        return result

    def best(self, window: int, positions: Sequence[int]) -> npt.NDArray[np.int64]:
        return self.ids[window, list(positions), 0].astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Everything the proof of one artifact compares with.

    Attributes:
        windows: token ids of the proof text ``[W, T]``.
        divergence: from the quantized reference with this artifact's kind of activations and cache.
        float_divergence: from the quantized reference with float activations and a float cache.
        keys: key caches ``[L, K, H, D]`` of the first tokens of window 0.
        facts: ``expect.json``: prompts, prompt ids, stop ids, quality figures per activation model, weight digests.
    """

    recipe: Recipe
    kind: Kind
    windows: npt.NDArray[np.int32]
    divergence: Divergence
    float_divergence: Divergence
    keys: FloatArray
    facts: Mapping[str, Any]

    @property
    def quality(self) -> Mapping[str, Any]:
        """Quality figures of the quantized reference with this artifact's activations and cache."""
        found: Mapping[str, Any] = self.facts[self.kind]
        return found


def from_expectations(expectations: Expectations, recipe: Recipe, activations: Activations) -> Standard:
    """The standard of a build: full logits."""
    home, kind = expectations.directory, kind_of(activations, expectations.kv_cache)
    return Standard(
        recipe=recipe,
        kind=kind,
        windows=np.load(home / "ids.npy"),
        divergence=FullLogits(LogitsFile.open(home / f"logits-{kind}.npy")),
        float_divergence=FullLogits(LogitsFile.open(home / "logits-float.npy")),
        keys=np.load(home / f"keys-{kind}.npy"),
        facts=read_json(home / "expect.json"),
    )


def write_golden(expectations: Expectations, out: Path) -> None:
    """Write ``golden.json`` and ``golden-KIND.safetensors`` into `out`: what a device needs to check itself.

    Tensors: ``ids`` int32 ``[W, T]``, ``top_ids`` int32 and ``top_log_probabilities`` float32 ``[W, T, TOP]``, ``keys``
    float32 ``[L, K, H, D]``, ``first_logits`` float32 ``[prompts, V]``. An encoder's were written by its `expect`
    and are copied (`kobako.pipeline.encoder.standard`).
    """
    from safetensors.numpy import save_file

    home = expectations.directory
    if (home / "golden.json").is_file():
        for path in home.glob("golden*"):
            shutil.copyfile(path, out / path.name)
        return
    facts = read_json(home / "expect.json")
    write_json(out / "golden.json", facts)
    for kind in sorted({"float", *(kind_of(one, expectations.kv_cache) for one in expectations.activations)}):
        logits = LogitsFile.open(home / f"logits-{kind}.npy")
        tops = [_window_top(logits, window) for window in range(logits.shape[0])]
        tensors = {
            "ids": np.load(home / "ids.npy"),
            "top_ids": np.stack([ids for ids, _ in tops]),
            "top_log_probabilities": np.stack([values for _, values in tops]),
            "keys": np.load(home / f"keys-{kind}.npy"),
            "first_logits": np.load(home / f"first-logits-{kind}.npy"),
        }
        save_file(tensors, out / f"golden-{kind}.safetensors")


def _window_top(logits: Rows, window: int) -> tuple[npt.NDArray[np.int32], FloatArray]:
    parts = [_top(logits[window, positions]) for positions in batches(logits.shape[1])]
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([values for _, values in parts])


def _top(logits: FloatArray) -> tuple[npt.NDArray[np.int32], FloatArray]:
    log_probabilities = log_softmax(np.asarray(logits))
    likely = np.argpartition(-log_probabilities, TOP, axis=-1)[:, :TOP]
    order = np.argsort(-np.take_along_axis(log_probabilities, likely, axis=-1), axis=-1, kind="stable")
    ids = np.take_along_axis(likely, order, axis=-1)
    return ids.astype(np.int32), np.take_along_axis(log_probabilities, ids, axis=-1)


def from_golden(golden: Path, recipe: Recipe, activations: Activations, kv_cache: KvCache = "float") -> Standard:
    """The standard that a package carries. Raises BadArtifact when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    kind = kind_of(activations, kv_cache)
    try:
        tensors = load_file(golden / f"golden-{kind}.safetensors")
        floats = load_file(golden / "golden-float.safetensors")
        facts = read_json(golden / "golden.json")
        return Standard(
            recipe=recipe,
            kind=kind,
            windows=tensors["ids"],
            divergence=TopLogits(tensors["top_ids"], tensors["top_log_probabilities"]),
            float_divergence=TopLogits(floats["top_ids"], floats["top_log_probabilities"]),
            keys=tensors["keys"],
            facts=facts,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadArtifact(
            f"the golden files in {golden} cannot be read: {error}.", "Pull the package again."
        ) from error
