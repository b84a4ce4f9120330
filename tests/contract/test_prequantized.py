"""A checkpoint that is 4-bit already keeps its grid through the default recipe; compressed-tensors itself packs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import RECIPES, no_progress
from kobako.pipeline.errors import IntegrityError
from kobako.pipeline.fetch import fetch, parse
from kobako.pipeline.quantize import quantize
from kobako.pipeline.reference.load import load
from kobako.pipeline.reference.weights import open_reference
from kobako.pipeline.weights import QuantizedTensor, open_weights

from tests.conftest import write_tiny_checkpoint

pytestmark = pytest.mark.heavy
GROUP = 32


@pytest.fixture(scope="module", params=[True, False], ids=["symmetric", "asymmetric"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A tiny llama whose linear layers are packed, and the weights that its packer says they stand for."""
    return pack(write_tiny_checkpoint(tmp_path_factory.mktemp("packed") / "model"), symmetric=request.param)


def pack(directory: Path, *, symmetric: bool) -> tuple[Path, dict[str, Any]]:
    import torch
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from safetensors.torch import load_file, save_file

    arguments = QuantizationArgs(num_bits=4, symmetric=symmetric, strategy="group", group_size=GROUP)
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    file = directory / "model.safetensors"
    stored, truth = {}, {}
    for name, value in load_file(file).items():
        if "proj" not in name:
            stored[name] = value
            continue
        blocks = value.unflatten(1, (-1, GROUP))
        low, high = blocks.amin(-1), blocks.amax(-1)
        scale = torch.maximum(-low, high) / 7.5 if symmetric else (high - low) / 15
        state = {"weight": value, "weight_scale": scale.to(torch.bfloat16)}
        if not symmetric:
            state["weight_zero_point"] = (-8 - torch.round(low / scale)).clamp(-8, 7).to(torch.int8)
        small = PackedQuantizationCompressor.compress(dict(state), scheme)
        path = name.removesuffix(".weight")
        stored |= {f"{path}.{leaf}": part.contiguous() for leaf, part in small.items()}
        truth[name] = PackedQuantizationCompressor.decompress(dict(small), scheme)["weight"].float().numpy()
    save_file(stored, file)
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": json.loads(scheme.model_dump_json())},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return directory, truth


def test_the_packers_own_weights_are_read_and_their_grid_is_kept(
    packed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    directory, truth = packed
    (tmp_path / "reference").mkdir()
    (tmp_path / "quantized").mkdir()
    reference = load(fetch(parse(str(directory)), tmp_path, no_progress), tmp_path / "reference")
    with open_reference(reference) as weights:
        for name, value in truth.items():
            assert np.allclose(weights[name], value, atol=0, rtol=2**-8), name  # the packer answers in bfloat16
    quantized = quantize(reference, RECIPES["int4"], tmp_path / "quantized")
    stored = open_weights(quantized.directory)
    for name in truth:
        tensor = stored[name]
        assert isinstance(tensor, QuantizedTensor)
        with open_reference(reference) as weights:
            error = grid_error(tensor, weights[name])
        assert error < 0.06, name  # 0.29 steps when it is rounded anew


def grid_error(tensor: QuantizedTensor, value: Any) -> float:
    """RMS error in steps, blocks taken as they were before smoothing gave each a factor of its own."""
    outputs = len(value)
    made = tensor.dequantize().reshape(outputs, -1, GROUP)
    wanted = value.reshape(outputs, -1, GROUP)
    factor = (made * wanted).sum(2, keepdims=True) / (wanted * wanted).sum(2, keepdims=True)
    return float(np.sqrt((((made - wanted * factor) / tensor.scales[:, :, None]) ** 2).mean()))


def test_a_missing_helper_is_named(packed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    directory, truth = packed
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in directory.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    name = next(iter(truth)).removesuffix(".weight")
    tensors = load_file(broken / "model.safetensors")
    del tensors[f"{name}.weight_scale"]
    save_file(tensors, broken / "model.safetensors")
    (tmp_path / "reference").mkdir()
    reference = load(fetch(parse(str(broken)), tmp_path, no_progress), tmp_path / "reference")
    with open_reference(reference) as weights, pytest.raises(IntegrityError, match=f"{name} is not packed"):
        weights[f"{name}.weight"]
