"""Every row of a matrix is worked on once, however many cores there are; the cores are those that are granted."""

from __future__ import annotations

import numpy as np
import pytest
from kobako.pipeline.rows import VALUES_AT_ONCE, cores, over_rows, row_slices


@pytest.mark.parametrize("granted", ["1", "2", "7"])
@pytest.mark.parametrize("shape", [(1, 5), (37, VALUES_AT_ONCE // 2), (3, 2 * VALUES_AT_ONCE), (0, 8)])
def test_every_row_once(monkeypatch: pytest.MonkeyPatch, granted: str, shape: tuple[int, int]) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", granted)
    seen = np.zeros(shape[0], np.int64)

    def work(rows: slice) -> None:
        seen[rows] += 1

    over_rows(shape, work)
    assert (seen == 1).all()


def test_a_part_fits_the_cache_unless_one_row_is_larger() -> None:
    assert all(part.stop - part.start == 2 for part in row_slices((10, VALUES_AT_ONCE // 2)))
    assert all(part.stop - part.start == 1 for part in row_slices((10, 2 * VALUES_AT_ONCE)))


def test_an_error_in_one_part_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    def work(rows: slice) -> None:
        if rows.start == 5:
            raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        over_rows((9, VALUES_AT_ONCE), work)


def test_cores_are_those_that_are_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "several")
    assert cores() >= 1
