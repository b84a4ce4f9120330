"""Figures of the proof against their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kobako.pipeline.contracts import FloatArray
from kobako.pipeline.logits import LogitsFile, batches, write_logits
from kobako.pipeline.metrics import Agreement, kl_nats, log_softmax, perplexity, relative_error, top1_agreement
from kobako.pipeline.standard import TOP, TopLogits, _top


@pytest.fixture
def logits() -> tuple[FloatArray, FloatArray]:
    random = np.random.default_rng(0)
    expected = random.normal(size=(40, 500)).astype(np.float32) * 3
    return expected, expected + random.normal(size=expected.shape).astype(np.float32) * 0.3


def test_kl_is_the_definition(logits: tuple[FloatArray, FloatArray]) -> None:
    expected, actual = logits
    p = np.exp(expected.astype(np.float64)) / np.exp(expected.astype(np.float64)).sum(-1, keepdims=True)
    q = np.exp(actual.astype(np.float64)) / np.exp(actual.astype(np.float64)).sum(-1, keepdims=True)
    assert np.allclose(kl_nats(expected, actual), (p * np.log(p / q)).sum(-1), atol=1e-5)


def test_kl_of_equals_is_zero_and_shift_invariant(logits: tuple[FloatArray, FloatArray]) -> None:
    expected, _ = logits
    assert kl_nats(expected, expected + 7).max() < 1e-5


def test_top_logits_are_a_lower_bound(logits: tuple[FloatArray, FloatArray]) -> None:
    expected, actual = logits
    ids, values = _top(expected)
    assert ids.shape == (40, TOP)
    golden = TopLogits(ids[None], values[None])
    bounded = golden.kl(0, range(40), actual)
    full = kl_nats(expected, actual)
    assert (bounded <= full + 1e-5).all()
    assert bounded.mean() > 0.5 * full.mean()
    assert (golden.best(0, range(40)) == expected.argmax(-1)).all()


def test_top1_and_perplexity() -> None:
    expected = np.eye(4, dtype=np.float32) * 10
    actual = expected.copy()
    actual[0] = [0, 9, 0, 0]
    assert top1_agreement(expected, actual) == 0.75
    uniform = np.zeros((4, 4), dtype=np.float32)
    assert perplexity(uniform, np.arange(4)) == pytest.approx(4.0)
    assert np.allclose(np.exp(log_softmax(expected)).sum(-1), 1.0)


def test_relative_error() -> None:
    assert relative_error(np.ones(4, np.float32), np.full(4, 1.5, np.float32)) == pytest.approx(0.5)


def test_rows_on_disk_are_the_rows(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(2, 70, 50)).astype(np.float32)
    written = write_logits(tmp_path / "l.npy", values.shape, iter([values[0, :64], values[0, 64:], values[1]]))
    assert np.array_equal(np.load(tmp_path / "l.npy"), values)
    for rows in (written, LogitsFile.open(tmp_path / "l.npy")):
        assert np.array_equal(rows[1, [69, 0, 3]], values[1, [69, 0, 3]])
        with pytest.raises(IndexError):
            rows[0, [70]]
    assert [one for batch in batches(70) for one in batch] == list(range(70))
    with pytest.raises(ValueError, match="7000 expected"):
        write_logits(tmp_path / "short.npy", values.shape, iter([values[0]]))


def test_agreement_of_batches_is_that_of_the_whole(logits: tuple[FloatArray, FloatArray]) -> None:
    expected, actual = logits
    ids = np.arange(40)
    whole = Agreement.of(expected, actual, ids[1:])
    parts = [Agreement.of(expected[a : a + 16], actual[a : a + 16], ids[a + 1 : a + 17]) for a in (0, 16, 32)]
    joined = Agreement.joined(parts)
    assert np.allclose(joined.kl_nats, whole.kl_nats)
    assert joined.same.mean() == whole.same.mean() == np.float32(top1_agreement(expected, actual))
    assert joined.perplexity == pytest.approx(perplexity(actual[:-1], ids[1:]), rel=1e-5)
    assert joined.margin == pytest.approx(whole.margin)
