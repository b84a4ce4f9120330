"""Weights that pass from one file into another a piece at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kobako.pipeline import pieces
from kobako.pipeline.contracts import Int8Array
from kobako.pipeline.pieces import file_pieces
from kobako.pipeline.tensorfile import TensorFile
from kobako.pipeline.weights import WEIGHTS_FILE, QuantizedTensor, Shifts, round_to_nearest, write_weights
from kobako.targets.litert.stored import Stored, stored_parameters

RANDOM = np.random.default_rng(0)
NORM = RANDOM.standard_normal(24).astype(np.float32)
HALF = RANDOM.standard_normal((6, 40)).astype(np.float16)
BYTES = round_to_nearest(RANDOM.standard_normal((12, 96)).astype(np.float32), 8, None)
SYMMETRIC = round_to_nearest(RANDOM.standard_normal((12, 96)).astype(np.float32), 4, 32)
SHIFTS = Shifts(RANDOM.integers(-127, 128, (12, 3)).astype(np.int8), RANDOM.random((12, 1)).astype(np.float32))
NIBBLES = QuantizedTensor(SYMMETRIC.codes, SYMMETRIC.scales, 4, SHIFTS)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with weights of every kind, read in pieces shorter than any of them."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 40)
    write_weights(tmp_path / WEIGHTS_FILE, {"norm": NORM, "half": HALF, "bytes": BYTES, "nibbles": NIBBLES}.items())
    return tmp_path


def test_tensors_come_back_whole(home: Path) -> None:
    file = TensorFile(home / WEIGHTS_FILE)
    np.testing.assert_array_equal(file.read("norm"), NORM)
    np.testing.assert_array_equal(file.read("half"), HALF)
    np.testing.assert_array_equal(file.read("nibbles"), NIBBLES.codes)
    np.testing.assert_array_equal(file.read("nibbles.scales"), NIBBLES.scales)
    assert file.metadata["nibbles.bits"] == "4"
    assert max(len(piece) for piece in file.pieces("bytes")) == 40


def bytes_of(stored: Stored) -> bytes:
    return b"".join(piece.tobytes() for piece in stored.pieces())


def packed(codes: Int8Array) -> bytes:
    low, high = codes.reshape(-1, 2).T
    return bytes(int(a) & 15 | (int(b) & 15) << 4 for a, b in zip(low, high, strict=True))


def test_litert_stores_what_was_quantized(home: Path) -> None:
    stored = stored_parameters(home)
    assert {name: one.kind for name, one in stored.items()} == {
        "norm": "FLOAT32", "half": "FLOAT16", "bytes": "INT8", "nibbles": "INT4",
    }  # fmt: skip
    assert bytes_of(stored["norm"]) == NORM.tobytes()
    assert bytes_of(stored["half"]) == HALF.tobytes()
    assert bytes_of(stored["bytes"]) == BYTES.codes.tobytes()
    assert bytes_of(stored["nibbles"]) == packed(NIBBLES.codes)
    assert all(one.size_bytes == len(bytes_of(one)) for one in stored.values())
    scales, shifts = stored["nibbles"].scales, stored["nibbles"].shifts
    assert scales is not None
    assert shifts is not None
    assert shifts.scales is not None
    np.testing.assert_array_equal(scales.read(), NIBBLES.scales)
    assert b"".join(piece.tobytes() for piece in scales.halves()) == NIBBLES.scales.astype(np.float16).tobytes()
    assert bytes_of(shifts) == SHIFTS.codes.tobytes()
    np.testing.assert_array_equal(shifts.scales.read(), SHIFTS.scales)


def test_a_file_that_ends_too_early_is_an_error(home: Path) -> None:
    path = home / WEIGHTS_FILE
    with pytest.raises(EOFError, match="cut off"):
        list(file_pieces(path, 8, path.stat().st_size))
