"""Damaged, foreign and half-written tables: refused before use, each with what happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from kobako.pipeline.embeddings import open_table, write_table
from kobako.pipeline.errors import BadArtifact, IntegrityError, KobakoError
from kobako.pipeline.weights import QuantizedTensor, WeightTensor

from tests.unit.embeddings.conftest import layout_of, values_of
from tests.unit.mutation import BytePlan, byte_plans, damaged_bytes

LAYOUT = layout_of()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_table(tmp_path / "table", LAYOUT, [values_of(LAYOUT)])
    return tmp_path / "table"


@pytest.mark.parametrize("bytes_left", [0, 5, 8, 3000])
def test_a_table_cut_off_in_its_header(table: Path, bytes_left: int) -> None:
    os.truncate(table, bytes_left)
    with pytest.raises(KobakoError, match=r"cut off|no embedding table"):
        open_table(table)


@pytest.mark.parametrize("bytes_off", [-1, 1, -5000])
def test_a_table_of_another_length(table: Path, bytes_off: int) -> None:
    os.truncate(table, table.stat().st_size + bytes_off)
    with pytest.raises(IntegrityError, match="cut off"):
        open_table(table)


@pytest.mark.parametrize("place", [4096, 5000, -1])
def test_a_flipped_bit(table: Path, place: int) -> None:
    data = bytearray(table.read_bytes())
    data[place] ^= 0x10
    table.write_bytes(data)
    opened = open_table(table, LAYOUT)
    with pytest.raises(IntegrityError, match="changed or damaged"):
        opened.check_digest()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"model": "another"}, "model is 'tiny', not 'another'"),
        ({"rows": 301}, "rows is 300, not 301"),
        ({"layers": 4}, "layers is 3, not 4"),
        ({"bits": 4}, "bits is 8, not 4"),
        ({"multiplier": 1.0}, "multiplier is 4.0, not 1.0"),
    ],
)
def test_another_models_table(table: Path, other: dict[str, object], named: str) -> None:
    with pytest.raises(BadArtifact, match=named):
        open_table(table, layout_of(**other))  # type: ignore[arg-type]


def test_a_safetensors_file_that_is_no_table(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"rows": np.zeros((2, 3), np.uint8)}, tmp_path / "other")
    with pytest.raises(BadArtifact, match="does not tell its layout"):
        open_table(tmp_path / "other")
    save_file({"rows": np.zeros((2, 3), np.uint8)}, tmp_path / "newer", metadata={"format": "kobako-embeddings-2"})
    with pytest.raises(BadArtifact, match="its format is 'kobako-embeddings-2'"):
        open_table(tmp_path / "newer")
    save_file({"rows": np.zeros((300, 3), np.uint8)}, tmp_path / "shape", metadata=LAYOUT.to_metadata("0" * 64))
    with pytest.raises(BadArtifact, match="its rows are not the 54 bytes"):
        open_table(tmp_path / "shape")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=byte_plans)
def test_no_damage_gets_through_or_crashes(table: Path, plan: BytePlan) -> None:
    """Whatever happened to the bytes: the same rows, or one of kobako's errors."""
    sound = table.read_bytes()
    damaged = table.with_suffix(".damaged")
    damaged.write_bytes(damaged_bytes(sound, plan))
    try:
        opened = open_table(damaged, LAYOUT, check_digest=True)
    except KobakoError:
        return
    assert (opened.data == open_table(table).data).all()


def test_what_was_already_there_stays_when_writing_fails(table: Path) -> None:
    before = table.read_bytes()

    def rows() -> Iterator[WeightTensor]:
        yield values_of(LAYOUT)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_table(table, LAYOUT, rows())
    assert table.read_bytes() == before
    assert list(table.parent.iterdir()) == [table]


@pytest.mark.parametrize("count", [0, 299, 301])
def test_too_few_or_too_many_rows_leave_nothing(tmp_path: Path, count: int) -> None:
    values = values_of(layout_of(rows=count)) if count else None
    with pytest.raises(IntegrityError, match=f"has {count} rows, the model says 300"):
        write_table(tmp_path / "table", LAYOUT, [] if values is None else [values])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 48), np.float16),
        QuantizedTensor(np.zeros((2, 48), np.int8), np.ones((2, 1), np.float32), 8),
        QuantizedTensor(np.zeros((2, 48), np.int8), np.ones((2, 3), np.float32), 4),
        QuantizedTensor(np.zeros((2, 47), np.int8), np.ones((2, 3), np.float32), 8),
        QuantizedTensor(np.zeros((2, 48), np.int8), np.full((2, 3), 1.0001, np.float32), 8),
    ],
    ids=["float16", "scales", "bits", "width", "inexact"],
)
def test_rows_of_another_layout_are_not_written(tmp_path: Path, values: WeightTensor) -> None:
    with pytest.raises(ValueError, match=r"no rows|not exact"):
        write_table(tmp_path / "table", LAYOUT, [values])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The kernel refuses the write, as it does on a full disk."""
    code = """
import resource, signal, sys
from pathlib import Path
from kobako.pipeline.embeddings import write_table
from tests.unit.embeddings.conftest import layout_of, values_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, -1))
block, layout = layout_of(rows=200), layout_of(rows=20000)
try:
    write_table(Path(sys.argv[1]), layout, (values_of(block) for _ in range(100)))
except OSError as error:
    sys.exit(3)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "table")], env=environment(), check=False)
    assert done.returncode == 3
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from kobako.pipeline.embeddings import write_table
from tests.unit.embeddings.conftest import layout_of, values_of
block, layout = layout_of(rows=200), layout_of(rows=200000)
def rows():
    while True:
        yield values_of(block)
        time.sleep(0.001)
write_table(Path(sys.argv[1]), layout, rows())
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "table")], env=environment())
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 4096 for path in tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "table").exists()
    assert len(list(tmp_path.iterdir())) == 1  # what it was working on, under a name that says so
    write_table(tmp_path / "table", LAYOUT, [values_of(LAYOUT)])
    open_table(tmp_path / "table", LAYOUT, check_digest=True)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ":".join(sys.path)}
