"""Files of tensors, held against the safetensors library's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kobako.pipeline.rows import VALUES_AT_ONCE
from kobako.pipeline.tensorfile import TensorFile, write_tensors
from safetensors import SafetensorError
from safetensors.numpy import save_file

RANDOM = np.random.default_rng(0)
TENSORS: dict[str, Any] = {
    "z.weight": RANDOM.integers(-8, 8, (6, 5)).astype(np.int8),
    "a.weight": RANDOM.integers(-8, 8, (3, 1)).astype(np.int8),
    "z.weight.scales": RANDOM.random((6, 1), np.float32),
    "half": RANDOM.random((2, 3)).astype(np.float16),
    "scalar": np.asarray(2.5, np.float32),
    "nothing": np.zeros((0, 4), np.float32),
    "é": RANDOM.random(7, np.float32),
}


def test_bytes_are_those_of_the_library_in_whatever_order_tensors_come(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "theirs", metadata={"format": "x"})
    for name, tensors in (("one", TENSORS), ("two", dict(reversed(TENSORS.items())))):
        write_tensors(tmp_path / name, tensors.items(), {"format": "x"})
        assert (tmp_path / name).read_bytes() == (tmp_path / "theirs").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "theirs", "two"]


def test_metadata_may_grow_until_the_last_tensor_has_come(tmp_path: Path) -> None:
    metadata: dict[str, str] = {}

    def tensors() -> Iterator[tuple[str, Any]]:
        for name, tensor in TENSORS.items():
            yield name, tensor
            metadata[name] = "seen"

    write_tensors(tmp_path / "file", tensors(), metadata)
    assert TensorFile(tmp_path / "file").metadata == dict.fromkeys(TENSORS, "seen")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", TENSORS.items(), {})
    read = TensorFile(tmp_path / "file")
    assert set(read.names()) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert read.shape(name) == tensor.shape
        assert read.read(name).dtype == tensor.dtype
        assert (read.read(name) == tensor).all()
        assert (read.floats(name) == tensor.astype(np.float32)).all()
    assert (read.rows("z.weight", 2, 4) == TENSORS["z.weight"][2:4]).all()
    assert (read.floats("half", 1, 9) == TENSORS["half"][1:]).all()


def test_bfloat16_becomes_the_float32_that_it_is(tmp_path: Path) -> None:
    values = RANDOM.standard_normal((5, VALUES_AT_ONCE // 2), np.float32).astype(ml_dtypes.bfloat16)
    values[0, :3] = [np.inf, -0.0, 1e-40]
    save_file({"w": values}, tmp_path / "file")
    read = TensorFile(tmp_path / "file")
    assert read.kind("w") == "BF16"
    assert (read.floats("w").view(np.uint32) == values.astype(np.float32).view(np.uint32)).all()
    assert (read.floats("w", 1, 4) == values[1:4].astype(np.float32)).all()


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", TENSORS.items(), {})
    read = TensorFile(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(whole[:-8])
    with pytest.raises(SafetensorError):
        TensorFile(tmp_path / "file")
    with pytest.raises(OSError, match="shorter"):
        read.read("z.weight")
