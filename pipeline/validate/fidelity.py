"""Artifact against quantized reference: weights bit for bit, logits through decode and prefill, keys per layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..contracts import Activations, Check, FloatArray
from ..metrics import relative_error
from ..protocols import Abreast, LayerProbe, Runtime, StoredWeight
from ..standard import Standard
from ..weights import weight_digest
from .gates import ADDED_NOISE, ADDED_NOISE_NATS, LAYER_DEPARTURE, Gate

PREFILL_CHUNKS = (3, 17, 128, 40, 64, 2, 100, 31)
BATCH = 32


@dataclass(frozen=True)
class Comparison:
    """Divergence and agreement at each compared position ``[N]``; `float_kl_nats`: from the float reference."""

    kl_nats: FloatArray
    float_kl_nats: FloatArray
    agrees: FloatArray

    @property
    def mean_kl(self) -> float:
        return float(self.kl_nats.mean())

    @property
    def top1(self) -> float:
        return float(self.agrees.mean())


def check_weights(stored: Iterable[StoredWeight], digests: Mapping[str, str]) -> Check:
    """Every quantized weight in the artifact is the quantizer's, each copy of it, and none is missing."""
    seen: set[str] = set()
    for weight in stored:
        seen.add(weight.name)
        if weight.name not in digests:
            return _weights_check("unknown tensor", f"{weight.name} is not a weight of the model")
        if digests[weight.name] != weight_digest(weight.codes, weight.scales, weight.offsets):
            return _weights_check("not identical", f"{weight.name} differs")
    if missing := [name for name in digests if name not in seen]:
        return _weights_check(f"{len(missing)} missing", f"the artifact lacks {missing[0]}")
    return _weights_check(f"{len(seen)} tensors identical", "")


def _weights_check(value: str, fault: str) -> Check:
    demand = "codes and scales bit for bit"
    return Check(part="weights", name="integers", value=value, demand=demand, passed=not fault, detail=fault)


class _Collector:
    """Compares logits in small batches, so that no ``[T, V]`` array of the artifact is ever held."""

    def __init__(self, standard: Standard) -> None:
        self._standard = standard
        self._window = 0
        self._positions: list[int] = []
        self._logits: list[FloatArray] = []
        self._kl: list[FloatArray] = []
        self._float_kl: list[FloatArray] = []
        self._agrees: list[FloatArray] = []

    def add(self, window: int, position: int, logits: FloatArray) -> None:
        if window != self._window or len(self._positions) == BATCH:
            self._flush()
        self._window = window
        self._positions.append(position)
        self._logits.append(logits)

    def _flush(self) -> None:
        if self._positions:
            actual, divergence = np.stack(self._logits), self._standard.divergence
            self._kl.append(divergence.kl(self._window, self._positions, actual))
            self._float_kl.append(self._standard.float_divergence.kl(self._window, self._positions, actual))
            same = actual.argmax(axis=-1) == divergence.best(self._window, self._positions)
            self._agrees.append(same.astype(np.float32))
            self._positions, self._logits = [], []

    def result(self) -> Comparison:
        self._flush()
        return Comparison(np.concatenate(self._kl), np.concatenate(self._float_kl), np.concatenate(self._agrees))


def compare_decode(runtime: Runtime, standard: Standard, tick: Callable[[float], None]) -> Comparison:
    """Feed the proof text, each token through decode; compare after every one."""
    collector = _Collector(standard)
    for w, window in enumerate(standard.windows):
        runtime.reset()
        for start in range(0, len(window), BATCH):
            tick((w + start / len(window)) / len(standard.windows))
            for position, logits in enumerate(decoded(runtime, window[start : start + BATCH]), start):
                collector.add(w, position, logits)
    return collector.result()


def decoded(runtime: Runtime, ids: npt.NDArray[np.int32]) -> Iterator[FloatArray]:
    """Feed tokens, each through decode; logits ``[V]`` after each."""
    if isinstance(runtime, Abreast):
        yield from runtime.feed_each(ids.tolist())
    else:
        yield from (runtime.feed([token]) for token in ids.tolist())


def compare_prefill(runtime: Runtime, standard: Standard, tick: Callable[[float], None]) -> Comparison:
    """Feed the proof text in chunks of irregular length; compare at each chunk's end and after one decode step."""
    collector = _Collector(standard)
    for w, window in enumerate(standard.windows):
        runtime.reset()
        for start, end in chunks(len(window)):
            collector.add(w, end - 2, runtime.feed([int(token) for token in window[start : end - 1]]))
            collector.add(w, end - 1, runtime.feed([int(window[end - 1])]))
            tick((w + end / len(window)) / len(standard.windows))
    return collector.result()


def chunks(length: int) -> list[tuple[int, int]]:
    """(start, end) of chunks that cover `length` tokens, each at least 3 long (2 through prefill, 1 through decode)."""
    bounds, start, turn = [], 0, 0
    while length - start >= 3:
        size = min(max(PREFILL_CHUNKS[turn % len(PREFILL_CHUNKS)], 3), length - start)
        bounds.append((start, start + size))
        start, turn = start + size, turn + 1
    return bounds


def key_errors(runtime: Runtime, standard: Standard) -> list[float] | None:
    """Relative error of every layer's keys after the first tokens, or None when the runtime cannot show them."""
    if not isinstance(runtime, LayerProbe):
        return None
    runtime.reset()
    for _ in decoded(runtime, standard.windows[0][: standard.keys.shape[1]]):
        pass
    errors = []
    for layer, expected in enumerate(standard.keys):
        keys = runtime.key_cache(layer)
        # a layer with fewer or smaller heads than others is filled up in the standard
        errors.append(relative_error(expected[:, : keys.shape[1], : keys.shape[2]], keys))
    return errors


def first_departing_layer(errors: Sequence[float] | None, activations: Activations) -> str:
    """Words that name the first layer whose keys depart from the reference's."""
    if errors is None:
        return "this runtime does not show its layers; `kobako inspect` shows the artifact"
    for layer, error in enumerate(errors):
        if not error <= LAYER_DEPARTURE[activations]:
            return f"layer {layer} is the first whose keys depart: relative error {error:.2g}"
    return "no layer's keys depart: look at the final norm and the head"


def added_noise_check(comparison: Comparison, standard: Standard, hint: str) -> Check | None:
    """Rounding activations and cache costs what the model of it says, and not more; None where neither is rounded.

    Two programs that round are each as far from the float reference as rounding makes them. An artifact that is farther
    has another fault besides.
    """
    if standard.kind == "float":
        return None
    modelled = float(standard.facts[standard.kind]["float_kl_nats"])
    measured, limit = float(comparison.float_kl_nats.mean()), ADDED_NOISE * modelled + ADDED_NOISE_NATS
    passed = measured <= limit
    return Check(
        part="fidelity", name="cost of rounding", value=f"{measured:.2e} nats",
        demand=f"≤ {limit:.2g} ({modelled:.2g} modelled)", passed=passed, detail="" if passed else hint,
    )  # fmt: skip


def fidelity_checks(name: str, comparison: Comparison, gate: Gate, hint: str) -> list[Check]:
    """The two checks of a comparison: mean KL and top-1 agreement."""
    kl_ok, top1_ok = comparison.mean_kl <= gate.kl_nats, comparison.top1 >= gate.top1
    return [
        Check(
            part="fidelity", name=f"{name} KL", value=f"{comparison.mean_kl:.2e} nats", demand=f"≤ {gate.kl_nats:.2g}",
            passed=bool(kl_ok), detail="" if kl_ok else hint,
        ),
        Check(
            part="fidelity", name=f"{name} top-1", value=f"{comparison.top1:.1%}", demand=f"≥ {gate.top1:.0%}",
            passed=bool(top1_ok), detail="" if top1_ok else hint,
        ),
    ]  # fmt: skip
