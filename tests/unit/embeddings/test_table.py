"""The table file: what is written is what is read, in any safetensors reader, one row for all layers of a token."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kobako.pipeline.embeddings import RowCache, TableLayout, open_table, write_table
from kobako.pipeline.errors import UsageError
from kobako.pipeline.weights import QuantizedTensor

from tests.unit.embeddings.conftest import in_blocks, layout_of, values_of

BITS = (4, 8, 16)


@given(
    rows=st.integers(1, 40),
    layers=st.integers(1, 7),
    half_width=st.integers(1, 20),
    bits=st.sampled_from(BITS),
    seed=st.integers(0, 1000),
)
def test_rows_are_packed_and_unpacked_without_loss(
    rows: int, layers: int, half_width: int, bits: Any, seed: int
) -> None:
    layout = layout_of(rows, layers, 2 * half_width, bits)
    values = values_of(layout, seed)
    packed = layout.pack(values)
    assert packed.shape == (rows, layout.row_bytes)
    again = layout.unpack(packed)
    if isinstance(values, QuantizedTensor):
        assert isinstance(again, QuantizedTensor)
        assert (again.codes == values.codes).all()
        assert (again.scales == values.scales).all()
        flat = values.dequantize()
    else:
        assert isinstance(again, np.ndarray)
        assert (again == values).all()
        flat = values.astype(np.float32)
    assert (layout.dequantize(packed) == flat.reshape(rows, layers, -1)).all()


@given(codes=st.lists(st.integers(-8, 7), min_size=4, max_size=4))
def test_every_code_of_four_bits_has_its_place(codes: list[int]) -> None:
    layout = layout_of(rows=1, layers=2, width=2, bits=4)
    values = QuantizedTensor(np.array([codes], np.int8), np.array([[1.0, 2.0]], np.float32), 4)
    assert layout.pack(values)[0].tolist() == [
        (codes[0] & 15) | (codes[1] & 15) << 4, 0x80, 0x3F, (codes[2] & 15) | (codes[3] & 15) << 4, 0x00, 0x40,
    ]  # fmt: skip


@pytest.mark.parametrize("bits", BITS)
def test_a_file_is_read_back_and_by_safetensors_too(tmp_path: Path, bits: Any) -> None:
    from safetensors import safe_open

    path, layout = tmp_path / "embeddings.safetensors", layout_of(bits=bits)
    digest = write_table(path, layout, in_blocks(layout))
    table = open_table(path, layout, check_digest=True)
    assert table.layout == layout
    values = values_of(layout)
    flat = values.dequantize() if isinstance(values, QuantizedTensor) else values.astype(np.float32)
    ids = [7, 0, layout.rows - 1, 7]
    assert (table.rows(ids) == flat[ids].reshape(len(ids), layout.layers, layout.width)).all()
    with safe_open(path, framework="numpy") as file:
        rows = file.get_tensor("rows")
        assert file.metadata()["sha256"] == digest == hashlib.sha256(rows.tobytes()).hexdigest()
    assert (rows == table.data).all()


def test_rows_begin_on_a_page(tmp_path: Path) -> None:
    for number, model in enumerate(("m", "m" * 3300, "m" * 3500, "m" * 9000)):
        layout = layout_of(model=model)
        path = tmp_path / f"{number}.safetensors"
        write_table(path, layout, [values_of(layout)])
        assert (path.stat().st_size - layout.data_bytes) % 4096 == 0
        assert open_table(path).layout == layout


def test_a_token_of_the_published_size_is_one_page_of_bytes() -> None:
    row = layout_of(rows=262144, layers=30, width=256, bits=4).row_bytes
    assert row == 30 * (128 + 2) <= 4096


def test_how_rows_are_cut_into_blocks_does_not_show(tmp_path: Path) -> None:
    layout = layout_of(bits=4)
    digests = {write_table(tmp_path / f"{size}", layout, in_blocks(layout, size)) for size in (1, 7, 128, 1000)}
    assert len(digests) == 1
    assert len({(tmp_path / f"{size}").read_bytes() for size in (1, 7, 128, 1000)}) == 1


def test_writing_holds_a_block_and_not_the_table(tmp_path: Path) -> None:
    """A table of 60 MB within an address space that has room for a third of it."""
    code = """
import resource, sys
from pathlib import Path
from kobako.pipeline.embeddings import open_table, write_table
from tests.unit.embeddings.conftest import layout_of, values_of
layout, block = layout_of(rows=60000, layers=4, width=256), layout_of(rows=200, layers=4, width=256)
values = values_of(block)
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000, -1))
write_table(Path(sys.argv[1]), layout, (values for _ in range(300)))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "table")], check=True, env=environment())
    assert open_table(tmp_path / "table", check_digest=True).layout.data_bytes > 60_000_000


@pytest.mark.parametrize("bad", [-1, 300, 2**40])
def test_a_token_without_a_row_is_refused(tmp_path: Path, bad: int) -> None:
    layout = layout_of()
    write_table(tmp_path / "table", layout, [values_of(layout)])
    table = open_table(tmp_path / "table")
    with pytest.raises(UsageError, match=f"token {bad} has no row"):
        table.rows([3, bad])
    with pytest.raises(UsageError):
        RowCache(table, 4).rows([bad])


@settings(max_examples=50)
@given(ids=st.lists(st.integers(0, 19), min_size=1, max_size=60), capacity=st.integers(0, 25))
def test_a_cache_answers_as_the_table_and_counts(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], capacity: int
) -> None:
    layout = layout_of(rows=20)
    path = tmp_path_factory.getbasetemp() / "cached.safetensors"
    if not path.exists():
        write_table(path, layout, [values_of(layout)])
    table = open_table(path)
    cache = RowCache(table, capacity)
    assert (np.concatenate([cache.rows([token]) for token in ids]) == table.rows(ids)).all()
    kept: list[int] = []  # the model of it: a list, the last used at its end
    hits = 0
    for token in ids:
        hits += token in kept
        kept = [*(other for other in kept if other != token), token][-capacity:] if capacity else []
    assert (cache.hits, cache.misses) == (hits, len(ids) - hits)
    assert cache.hit_rate == hits / len(ids)
    assert cache.kept_bytes == len(kept) * layout.layers * layout.width * 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_only_rows_in_use_become_resident(tmp_path: Path) -> None:
    layout = layout_of(rows=20000, layers=4, width=256)
    block = layout_of(rows=200, layers=4, width=256)
    values = values_of(block)
    write_table(tmp_path / "table", layout, (values for _ in range(100)))
    with (tmp_path / "table").open("rb") as file:
        posix_fadvise_dontneed(file.fileno())
    table = open_table(tmp_path / "table", read_ahead=False)
    before = resident_bytes(tmp_path / "table")
    table.rows([100, 10000, 19000])
    assert before == 0
    assert 3 * 4096 <= resident_bytes(tmp_path / "table") <= 3 * 2 * 4096  # each row of 1032 bytes on one page, or two


def posix_fadvise_dontneed(descriptor: int) -> None:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes(path: Path) -> int:
    """What of a file this process has in memory, from the kernel's list of mappings."""
    sizes, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            sizes += int(line.split()[1]) * 1024
    return sizes


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ":".join(sys.path)}


def test_the_layout_says_whose_rows_they_are(tmp_path: Path) -> None:
    layout = TableLayout(model="a b\n'é", parameter="p", rows=2, layers=1, width=2, bits=8, multiplier=0.1 + 0.2)
    write_table(tmp_path / "table", layout, [values_of(layout)])
    assert open_table(tmp_path / "table", layout).layout.multiplier == 0.1 + 0.2
