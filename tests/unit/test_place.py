"""A directory takes its place: at once, whatever stands there, and dead processes' leftovers go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from kobako.pipeline import place
from kobako.pipeline.errors import OutputError


def made(path: Path, text: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(text)
    return path


def test_a_new_directory_and_one_in_the_place_of_another(tmp_path: Path) -> None:
    out = tmp_path / "out"
    place.take_place(made(tmp_path / "a", "one"), out)
    place.take_place(made(tmp_path / "b", "two"), out)
    assert (out / "file").read_text() == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_without_exchange_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_exchange", lambda one, other: False)
    test_a_new_directory_and_one_in_the_place_of_another(tmp_path)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="Linux exchanges directories; here nothing is promised")
def test_the_directory_is_there_at_every_moment(tmp_path: Path) -> None:
    out = made(tmp_path / "out", "0")
    absent, done = [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not out.exists():
                absent.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(200):
        place.take_place(made(tmp_path / f"w{number}", str(number)), out)
    done.set()
    watcher.join()
    assert not absent


def test_leftovers_of_dead_processes_go_and_of_living_ones_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    mine = made(place.scratch_beside(out), "mine")
    dead = made(Path(str(mine).replace(f"@{os.getpid()}@", "@999999999@")), "dead")
    foreign = made(Path(str(dead).replace(f".{place._host()}@", ".elsewhere@")), "of another machine")
    other = made(tmp_path / ".outer.x@999999999@00000000.partial", "of another package")
    place.sweep(out)
    assert mine.exists()
    assert foreign.exists()
    assert other.exists()
    assert not dead.exists()


def test_killed_between_two_renames_the_old_package_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(place.scratch_beside(out).with_suffix(".old"), "old")
    left = next(tmp_path.iterdir())
    left.rename(str(left).replace(f"@{os.getpid()}@", "@999999999@"))
    place.sweep(out)
    assert (out / "file").read_text() == "old"


def test_a_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), place.unwritable_is_an_error(tmp_path / "file" / "x"):
        (tmp_path / "file" / "x").mkdir()
