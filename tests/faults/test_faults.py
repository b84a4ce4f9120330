"""A quick part of scripts/faults; the whole of it prints the table in docs/faults.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TinyBuild
from tests.faults import crowds, disks, flips, killing, servers
from tests.faults.ground import Ground, Row

pytestmark = [pytest.mark.heavy, pytest.mark.long]


@pytest.fixture
def ground(tmp_path: Path, tiny_build: TinyBuild) -> Ground:
    return Ground(tmp_path, tiny=tiny_build)


def check(*rows: Row) -> None:
    for row in rows:
        assert row.tried > 0 or row.note.startswith("skipped"), row.fault
        assert row.wrong == [], row.fault


def needs_mounts(action: object, *arguments: object) -> None:
    try:
        made = action(*arguments)  # type: ignore[operator]
    except PermissionError as error:
        pytest.skip(str(error))
    check(*(made if isinstance(made, list) else [made]))


def test_bad_servers(ground: Ground) -> None:
    rows = servers.pulls(ground)
    check(*rows)
    assert {row.survived for row in rows if "cuts three times" in row.fault or "stalls once" in row.fault} == {1}
    assert {row.refused for row in rows if "always" in row.fault or "says it is" in row.fault} == {1}


def test_flipped_bits(ground: Ground) -> None:
    found = flips.packages(ground, 4)
    check(found)
    assert found.refused == found.tried
    check(flips.sources(ground, 4))


def test_kills(ground: Ground) -> None:
    check(killing.pulls(ground, 2), killing.publishes(ground, 2), killing.builds(ground, 2))


def test_full_disks(ground: Ground) -> None:
    needs_mounts(disks.roads, ground, 2)


def test_a_full_disk_while_building(ground: Ground) -> None:
    needs_mounts(disks.builds, ground, 1)


def test_places_that_cannot_be_written(ground: Ground) -> None:
    needs_mounts(disks.read_only, ground)


def test_dates_and_names(ground: Ground) -> None:
    check(disks.clocks(ground))
    needs_mounts(disks.case_insensitive, ground)
    needs_mounts(disks.case_insensitive_build, ground)


def test_crowds(ground: Ground) -> None:
    check(*crowds.pulls(ground, 2), crowds.publishes(ground, 2))
