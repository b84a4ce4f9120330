"""Figures as words, at the edges where rounding or a missing number would lie."""

from __future__ import annotations

import math

import pytest
from kobako.pipeline.report import words


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_499, "999.5 kB"), (999_999, "1.0 MB"),
     (134_744_321, "134.7 MB"),     (999_900_000, "1.00 GB"), (2_613_000_000, "2.61 GB"), (math.nan, "not a number")],
)  # fmt: skip
def test_bytes(n: float, text: str) -> None:
    assert words.human_bytes(n) == text


@pytest.mark.parametrize(
    ("s", "text"),
    [(0, "0 ms"), (0.042, "42 ms"), (0.0996, "0.1 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
     (125.2, "2 min 05 s"), (3599.6, "1 h 00 min"), (3725, "1 h 02 min"), (math.inf, "infinite")],
)  # fmt: skip
def test_seconds(s: float, text: str) -> None:
    assert words.human_seconds(s) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100%"), (0.9999, ">99.9%"), (0.998, "99.8%"), (0.0001, "<0.1%"), (0, "0%"), (1.3, "130.0%"),
     (math.nan, "not a number")],
)  # fmt: skip
def test_a_share_never_rounds_to_all_or_nothing(share: float, text: str) -> None:
    assert words.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2.34e-5, "2.3×10⁻⁵"), (0.00095, "0.00095"), (0.0311, "0.031"), (12.3, "12"), (math.inf, "infinite")],
)
def test_small_figures(value: float, text: str) -> None:
    assert words.small(value) == text


def test_rates_lists_and_counts() -> None:
    assert [words.rate(value) for value in (2.31, 9.96, 1234.5)] == ["2.3 tok/s", "10 tok/s", "1,234 tok/s"]
    assert [words.listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert [words.count(n, "check") for n in (1, 2)] == ["1 check", "2 checks"]


def test_cleaned_text_can_be_written_as_utf8_and_keeps_its_lines() -> None:
    assert words.cleaned({"a": ["x\x00\x1b\ud800\ty\r\n", 3, None]}) == {"a": ["x\ufffd\ufffd\ufffd\ty\r\n", 3, None]}
