"""Core ML's weight file, read from bytes written here by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kobako.pipeline.errors import BadArtifact
from kobako.targets.coreml.mil.blob import BlobFile, unpack


def blob(path: Path, code: int, data: bytes, *, sentinel: int = 0xDEADBEEF, size: int | None = None) -> BlobFile:
    """A weight file of one entry at byte 64."""
    header = struct.pack("<II", 1, 2).ljust(64, b"\0")
    entry = struct.pack("<IIQQQ", sentinel, code, len(data) if size is None else size, 128, 0).ljust(64, b"\0")
    path.write_bytes(header + entry + data)
    return BlobFile(path)


def test_reads_float16_and_int8(tmp_path: Path) -> None:
    halves = np.array([[1.5, -2.0], [0.25, 65504.0]], np.float16)
    np.testing.assert_array_equal(blob(tmp_path / "a", 1, halves.tobytes()).read(64, (2, 2)), halves)
    codes = np.array([-127, 0, 127], np.int8)
    np.testing.assert_array_equal(blob(tmp_path / "b", 4, codes.tobytes()).read(64, (3,)), codes)


def test_reads_int4_low_nibble_first(tmp_path: Path) -> None:
    file = blob(tmp_path / "a", 8, bytes([0x79, 0x0F]))  # −7, 7, −1 and four unused bits
    assert file.read(64, (3,)).tolist() == [-7, 7, -1]
    assert file.entry(64).dtype == "int4"


@given(st.sampled_from([1, 2, 3, 4, 6]), st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_unpack_inverts_packing(bits: int, numbers: list[int]) -> None:
    values = [number % (1 << bits) for number in numbers]
    stream = sum(value << (index * bits) for index, value in enumerate(values))
    packed = np.frombuffer(stream.to_bytes((len(values) * bits + 7) // 8, "little"), np.uint8)
    assert unpack(packed, bits, len(values), signed=False).tolist() == values
    signed = [value - (1 << bits) if value >= 1 << (bits - 1) else value for value in values]
    assert unpack(packed, bits, len(values), signed=True).tolist() == signed


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="no tensor begins"):
        blob(tmp_path / "a", 1, b"\0\0", sentinel=7).entry(64)
    with pytest.raises(BadArtifact, match="no tensor begins"):
        blob(tmp_path / "b", 99, b"\0\0").entry(64)
    with pytest.raises(BadArtifact, match="needs 400 bytes, the file has 130"):
        blob(tmp_path / "c", 1, b"\0\0", size=400).entry(64)
    with pytest.raises(BadArtifact, match="lies outside"):
        blob(tmp_path / "d", 1, b"\0\0").entry(1 << 40)
    with pytest.raises(BadArtifact, match="do not make"):
        blob(tmp_path / "e", 1, b"\0\0").read(64, (2,))
    for name, data in (("f", b""), ("g", b"\0" * 128)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadArtifact):
            BlobFile(tmp_path / name)


@pytest.mark.parametrize(("code", "bits"), [(8, 4), (4, 8), (1, 16), (12, 3)])
def test_reads_a_part_without_the_rest(tmp_path: Path, code: int, bits: int) -> None:
    data = bytes((7 * i) % 64 for i in range(96))
    file, count = blob(tmp_path / "a", code, data), 96 * 8 // bits
    whole = file.read(64, (count,))
    for begin, end in ((0, count), (5, 9), (count // 2 + 1, count), (3, 3)):
        np.testing.assert_array_equal(file.part(64, (count,), begin, end), whole[begin:end])
