"""An export holds no copy of the weights: they go from the mapped file into the .pte, a few rows at a time."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kobako.pipeline.contracts import ExportOptions, Quantized, no_progress
from kobako.pipeline.weights import WEIGHTS_FILE, QuantizedTensor, WeightTensor, open_weights, write_weights
from kobako.targets.executorch import TARGET

pytestmark = pytest.mark.heavy
Tiny = Callable[..., Quantized]


def test_a_mapped_tensor_is_found_in_its_file_and_another_is_not(tiny: Tiny) -> None:
    import torch
    from kobako.targets.executorch.mapped import map_weights, place_of

    quantized, name = tiny("int8"), "model.layers.1.mlp.down_proj.weight"
    stored = map_weights(quantized)[name]
    assert isinstance(stored, QuantizedTensor)
    place = place_of(torch.from_numpy(stored.codes)[3:])
    assert place is not None
    read = np.fromfile(place[0], np.int8, stored.codes[3:].size, offset=place[1])
    np.testing.assert_array_equal(read.reshape(-1, stored.codes.shape[1]), stored.codes[3:])
    assert place_of(torch.from_numpy(stored.codes).clone()) is None
    assert place_of(torch.from_numpy(stored.codes).T) is None  # its bytes lie in another order


def test_mapped_weights_are_the_weights(tiny: Tiny) -> None:
    from kobako.targets.executorch.mapped import map_weights

    for recipe in ("int4-small", "float16"):
        mapped, plain = map_weights(tiny(recipe)), open_weights(tiny(recipe).directory)
        assert list(mapped) == list(plain)
        for name in plain:
            np.testing.assert_array_equal(mapped.dequantized(name), plain.dequantized(name))


def test_packed_rows_are_the_packed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from kobako.targets.executorch import constants
    from kobako.targets.executorch.modules import pack_nibbles

    codes = torch.randint(-8, 8, (37, 64), dtype=torch.int8)
    whole = pack_nibbles(codes).numpy().tobytes()
    for at_once in (1, 5 * 64, 1 << 20):
        monkeypatch.setattr(constants, "BYTES_AT_ONCE", at_once)
        rows = constants.RowsOf(codes, pack_nibbles)
        assert (len(rows), rows.to_bytes(), rows.prefix(40)) == (len(whole), whole, whole[:40])
        assert rows.sha256() == hashlib.sha256(whole).digest()
        assert copy.deepcopy(rows) is rows


def test_in_which_pieces_a_file_was_written_does_not_show(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kobako.targets.executorch import constants, share

    def digest(name: str) -> str:
        (tmp_path / name).mkdir()
        exported = TARGET.export(tiny("int4"), ExportOptions(context_tokens=64), tmp_path / name, no_progress)
        assert exported.details["shared_table_bytes"] > 0
        return hashlib.sha256((exported.directory / "model.pte").read_bytes()).hexdigest()

    whole = digest("whole")
    monkeypatch.setattr(constants, "SMALL_BYTES", 1)
    monkeypatch.setattr(constants, "BYTES_AT_ONCE", 700)
    monkeypatch.setattr(share, "BYTES_AT_ONCE", 1000)
    assert digest("pieces") == whole


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory can be reset on Linux only")
@pytest.mark.parametrize("recipe", ["int8", "int4-nearest"])
def test_an_export_grows_by_less_than_a_third_of_the_weights(tiny: Tiny, tmp_path: Path, recipe: str) -> None:
    TARGET.export(tiny(recipe), ExportOptions(context_tokens=64), tmp_path, no_progress)  # loads the vendor
    wide = widened(tiny(recipe), tmp_path)
    before = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    exported = TARGET.export(wide, ExportOptions(context_tokens=64), tmp_path, no_progress)
    growth, size = memory_bytes("VmHWM") - before, (wide.directory / WEIGHTS_FILE).stat().st_size
    assert growth < size / 3, f"{growth / 1e6:.0f} MB for weights of {size / 1e6:.0f} MB"
    weights = open_weights(wide.directory)
    for stored in TARGET.stored_weights(exported):
        wanted = weights[stored.name]
        assert isinstance(wanted, QuantizedTensor)
        np.testing.assert_array_equal(stored.codes, wanted.codes)


def memory_bytes(name: str) -> int:
    """An entry of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def widened(quantized: Quantized, out: Path) -> Quantized:
    """The same model with 16 times as many channels, 65,536 tokens and random codes: about 150 MB."""
    directory, generator = out / "wide", np.random.default_rng(0)
    directory.mkdir()
    config = json.loads((quantized.directory / "config.json").read_text())
    config.update(hidden_size=1024, intermediate_size=12288, vocab_size=65536, num_hidden_layers=2, head_dim=256)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer").symlink_to(quantized.tokenizer_dir)
    sizes = {64: 1024, 192: 12288, 384: 65536, 32: 512}

    def wide(name: str, tensor: WeightTensor) -> WeightTensor:
        if not isinstance(tensor, QuantizedTensor):
            return np.ones(1024, np.float32)
        outputs, inputs = (sizes[size] for size in tensor.codes.shape)
        groups = 1 if tensor.scales.shape[1] == 1 else inputs // tensor.group_size
        codes = generator.integers(-7, 8, (outputs, inputs), dtype=np.int8)
        return QuantizedTensor(codes, np.full((outputs, groups), 2.0**-9, np.float32), tensor.bits)

    weights = open_weights(quantized.directory)
    write_weights(directory / WEIGHTS_FILE, ((name, wide(name, weights[name])) for name in weights))
    return replace(quantized, directory=directory)
