"""Every gate must fail when what it guards is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from kobako.pipeline.contracts import RECIPES, Activations, FloatArray, Report
from kobako.pipeline.errors import ProofFailed
from kobako.pipeline.package import proof_error
from kobako.pipeline.protocols import Generation, StoredWeight
from kobako.pipeline.standard import FullLogits, Standard
from kobako.pipeline.tokens import ShippedTokenizer
from kobako.pipeline.validate.behaviour import Answer, check_greedy, check_stop
from kobako.pipeline.validate.fidelity import (
    check_weights,
    chunks,
    compare_decode,
    compare_prefill,
    fidelity_checks,
    first_departing_layer,
    key_errors,
)
from kobako.pipeline.validate.gates import Gate, fidelity_gate, for_few_positions
from kobako.pipeline.weights import weight_digest

V, T, LAYERS = 50, 300, 3


class Scripted:
    """Answers with given logits by position, plus noise; holds keys. Stands for a converter that errs."""

    context_tokens = T

    def __init__(
        self, logits: FloatArray, keys: FloatArray, noise: float = 0.0, broken_layer: int | None = None
    ) -> None:
        self._logits, self._keys, self._noise, self._broken = logits, keys, noise, broken_layer
        self._position = 0
        self._random = np.random.default_rng(1)

    def reset(self) -> None:
        self._position = 0

    def feed(self, ids: Sequence[int]) -> FloatArray:
        self._position += len(ids)
        clean = self._logits[0, self._position - 1]
        return clean + self._random.normal(size=V).astype(np.float32) * self._noise

    def key_cache(self, layer: int) -> FloatArray:
        broken = self._broken is not None and layer >= self._broken
        return -self._keys[layer] if broken else self._keys[layer]

    def close(self) -> None: ...


@pytest.fixture
def standard() -> Standard:
    random = np.random.default_rng(0)
    divergence = FullLogits(random.normal(size=(1, T, V)).astype(np.float32) * 5)
    return Standard(
        recipe=RECIPES["int8"],
        kind="float",
        windows=random.integers(0, V, size=(1, T)).astype(np.int32),
        divergence=divergence,
        float_divergence=divergence,
        keys=random.normal(size=(LAYERS, 8, 2, 4)).astype(np.float32),
        facts={"prompts": ["a"], "stop_ids": [2], "float": {"greedy": [[7, 2]], "margins": [[1.0, 1.0]]}},
    )


def quiet(_fraction: float) -> None:
    """A tick for nobody."""


def runtime(standard: Standard, **faults: float) -> Scripted:
    assert isinstance(standard.divergence, FullLogits)
    return Scripted(standard.divergence.logits, standard.keys, **faults)  # type: ignore[arg-type]


@pytest.mark.parametrize("compare", [compare_decode, compare_prefill])
def test_a_faithful_runtime_passes_and_a_noisy_one_fails(standard: Standard, compare: Callable[..., object]) -> None:
    gate = fidelity_gate("float16", {})
    for noise, passes in ((0.0, True), (1.0, False)):
        result = compare(runtime(standard, noise=noise), standard, quiet)
        checks = fidelity_checks("decode", result, gate, "hint")  # type: ignore[arg-type]
        assert all(check.passed for check in checks) is passes
        assert [check.detail for check in checks if not check.passed] == ([] if passes else ["hint", "hint"])


def test_one_position_of_a_few_may_be_a_near_tie() -> None:
    gate = fidelity_gate("float16", {})
    below_nothing = Gate(kl_nats=1.0, top1=-0.02)  # a reference that hardly agrees with itself
    assert for_few_positions(below_nothing, "int8-dynamic", 22).top1 == below_nothing.top1
    few = for_few_positions(gate, "float16", 22)
    assert few.kl_nats == gate.kl_nats
    assert 20 / 22 < few.top1 < np.float32(21 / 22)
    assert for_few_positions(gate, "float16", 512).top1 == gate.top1
    rounded = fidelity_gate("int8-dynamic", {"kl_nats": 0.0, "top1": 1.0})
    few = for_few_positions(rounded, "int8-dynamic", 22)
    assert rounded.kl_nats < few.kl_nats < 1.5 * rounded.kl_nats
    assert few.top1 < rounded.top1 < few.top1 + 0.15


@pytest.mark.parametrize("activations", ["float16", "int8-dynamic"])
def test_a_prefill_off_by_one_is_caught_at_few_positions(standard: Standard, activations: Activations) -> None:
    shifted = runtime(standard)
    shifted._logits = np.roll(shifted._logits, 1, axis=1)
    result = compare_prefill(shifted, standard, quiet)
    gate = fidelity_gate(activations, {"kl_nats": 0.02, "top1": 0.92})
    few = for_few_positions(gate, activations, len(result.kl_nats))
    assert not any(check.passed for check in fidelity_checks("prefill", result, few, "hint"))


def test_a_position_off_by_one_is_caught(standard: Standard) -> None:
    shifted = runtime(standard)
    shifted._logits = np.roll(shifted._logits, 1, axis=1)
    result = compare_decode(shifted, standard, quiet)
    assert result.mean_kl > 1
    assert result.top1 < 0.2


@pytest.mark.parametrize("length", [3, 64, 300, 512])
def test_chunks_cover_every_token_once(length: int) -> None:
    bounds = chunks(length)
    assert bounds[0][0] == 0
    assert all(end - start >= 3 for start, end in bounds)
    assert all(one[1] == other[0] for one, other in pairwise(bounds))
    assert length - bounds[-1][1] < 3


def test_the_first_departing_layer_is_named(standard: Standard) -> None:
    assert "no layer" in first_departing_layer(key_errors(runtime(standard), standard), "float16")
    broken = key_errors(runtime(standard, broken_layer=1), standard)
    assert "layer 1" in first_departing_layer(broken, "float16")
    assert "layer 0" in first_departing_layer([float("nan")], "float16")


def stored(codes: int = 3) -> StoredWeight:
    return StoredWeight(name="w", codes=np.full((2, 4), codes, np.int8), scales=np.ones((2, 1), np.float32))


def test_integers_must_be_identical_and_complete() -> None:
    digest = weight_digest(stored().codes, stored().scales)
    assert check_weights([stored()], {"w": digest}).passed
    assert check_weights([stored(), stored()], {"w": digest}).passed
    second_copy_differs = check_weights([stored(), stored(4)], {"w": digest})
    assert not second_copy_differs.passed
    assert "w differs" in second_copy_differs.detail
    assert "lacks v" in check_weights([stored()], {"w": digest, "v": digest}).detail
    assert not check_weights([stored()], {}).passed
    other_scale = StoredWeight(name="w", codes=stored().codes, scales=np.full((2, 1), 1.0001, np.float32))
    assert not check_weights([other_scale], {"w": digest}).passed


def test_greedy_needs_four_of_five() -> None:
    same = Answer("p", "e", "e", same=True, tie=False, note="")
    other = Answer("p", "e", "x", same=False, tie=False, note="parts at token 1")
    tie = Answer("p", "e", "x", same=False, tie=True, note="near")
    assert check_greedy([same] * 4 + [other]).passed
    failing = check_greedy([same] * 3 + [other] * 2)
    assert not failing.passed
    assert "parts at token 1" in failing.detail
    tied = check_greedy([same] * 2 + [tie] * 2 + [other])
    assert tied.passed
    assert tied.value == "2 of 5 prompts equal, 2 part at a near tie"


@pytest.mark.parametrize(("margin", "tie"), [(0.1, True), (0.9, False)])
def test_parting_is_excused_only_where_the_reference_itself_wavers(
    standard: Standard, tmp_path: Path, margin: float, tie: bool
) -> None:
    from kobako.pipeline.tokens import ShippedTokenizer
    from kobako.pipeline.validate.behaviour import _answer

    from tests.conftest import write_tiny_tokenizer

    write_tiny_tokenizer(tmp_path / "t")
    tokenizer = ShippedTokenizer(tmp_path / "t")
    ids = tokenizer.encode("the model speaks in whole sentences")
    standard.facts["float"]["margins"] = [[5.0, 5.0, margin] + [5.0] * len(ids)]
    standard.facts["float"]["noise"] = {"margin": 0.2}
    wrong = tokenizer.decode(ids[:2]) + " XYZ"
    answer = _answer("p", wrong, tokenizer, ids, standard, 0)
    assert answer.tie is tie
    assert answer.note.startswith("token 3")


class Talker:
    """An engine that says `count` tokens."""

    def __init__(self, count: int, text: str = "x") -> None:
        self._count, self._text = count, text

    def generate(self, prompt: str, max_new_tokens: int, on_text: Callable[[str], None]) -> Generation:
        count = min(self._count, max_new_tokens)
        return Generation(
            text=self._text, token_ids=None, prompt_tokens=1, generated_tokens=count, prefill_s=0.1, decode_s=0.1
        )

    def close(self) -> None: ...


def test_an_engine_that_leaves_bos_out_is_caught() -> None:
    from kobako.pipeline.validate.behaviour import Answer, check_prompts

    whole = Answer("p", "x", "x", same=True, tie=False, note="", read=5, wanted=5)
    assert check_prompts([whole]).passed
    short = Answer("p", "x", "x", same=False, tie=True, note="", read=4, wanted=5)
    assert "4 tokens read instead of 5" in check_prompts([whole, short]).detail


def test_an_engine_that_does_not_stop_is_caught(standard: Standard, tmp_path: Path) -> None:
    from tests.conftest import write_tiny_tokenizer

    write_tiny_tokenizer(tmp_path / "tokenizer")
    beside = tmp_path / "tokenizer"
    tokens = ShippedTokenizer(beside)
    said = tokens.encode("x")

    def asked(margins: list[float]) -> Standard:
        facts = {"greedy": [[*said, 2]], "margins": [margins], "noise": {"margin": 0.4}}
        return replace(standard, facts={**standard.facts, "float": facts})

    wide, at_the_start, at_the_stop = [1.0] * (len(said) + 1), [0.1] + [1.0] * len(said), [1.0] * len(said) + [0.1]
    assert check_stop(Talker(len(said) + 1), asked(wide), beside).passed
    assert not check_stop(Talker(99), asked(wide), beside).passed
    assert not check_stop(Talker(99), asked(at_the_start), beside).passed  # it said the same, and went on
    assert check_stop(Talker(99), asked(at_the_stop), beside).passed
    assert check_stop(Talker(99, "y"), asked(at_the_start), beside).value == "not exercised"
    assert not check_stop(Talker(99, "y"), asked(at_the_stop), beside).passed


def test_a_failing_report_says_which_check_and_what_to_do() -> None:
    check = check_weights([], {"w": "0"})
    report = Report(target="litert", recipe="int8", activations="int8-dynamic", checks=(check,), figures={})
    assert not report.passed
    error = proof_error(report)
    assert isinstance(error, ProofFailed)
    assert "litert int8" in error.what
    assert "lacks w" in error.what
    assert "--allow-failing" in error.next_step
