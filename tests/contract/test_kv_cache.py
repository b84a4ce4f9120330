"""An int8 KV cache: what the file stores, what it says, and that the proof sees a cache that is off by one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import Exported, ExportOptions, Quantized, no_progress
from kobako.pipeline.standard import FullLogits, Standard, kind_of
from kobako.pipeline.validate.fidelity import added_noise_check, compare_decode, compare_prefill, fidelity_checks
from kobako.pipeline.validate.gates import fidelity_gate, for_few_positions
from kobako.targets.executorch import TARGET

from tests.conftest import write_tiny_tokenizer
from tests.families import SHAPES, make

pytestmark = pytest.mark.heavy

OPTIONS = ExportOptions(context_tokens=256, kv_cache="int8")


def export(quantized: Quantized, out: Path) -> Exported:
    made = TARGET.export(quantized, OPTIONS, out, no_progress)
    assert made.kv_cache == "int8"
    return made


def standard_of(quantized: Quantized) -> Standard:
    """The quantized reference with an int8 cache, and beside it the one that rounds nothing."""
    from kobako.pipeline.continuation import Prompts
    from kobako.pipeline.expect import _noise, answers_of, compared
    from kobako.pipeline.prooftext import proof_windows
    from kobako.pipeline.reference.eager import quantized_model
    from kobako.pipeline.tokens import ShippedTokenizer

    kind = kind_of(TARGET.activations(quantized.recipe), "int8")
    windows = proof_windows(ShippedTokenizer(quantized.tokenizer_dir), OPTIONS.context_tokens)[:1, :150]
    model = quantized_model(quantized)
    answers, floats = (answers_of(model, one, windows, Prompts([[5, 9]], (2,))) for one in (kind, "float"))
    cost = float(compared(floats.logits, answers.logits, windows).kl_nats.mean())
    noise = _noise(model, kind, windows, answers.logits)
    return Standard(
        recipe=quantized.recipe, kind=kind, windows=windows, divergence=FullLogits(answers.logits),
        float_divergence=FullLogits(floats.logits), keys=answers.keys,
        facts={"stop_ids": [2], kind: {"noise": noise, "float_kl_nats": cost}},
    )  # fmt: skip


FAMILIES = ("gemma3_text", "gemma2", "gemma4_text")
"""Sliding windows; soft caps; layers that read another layer's keys and values, heads of two sizes."""


def of_family(model_type: str, directory: Path) -> Quantized:
    """A random model of FAMILIES in float16."""
    shape = next(shape for shape in SHAPES if shape.model_type == model_type)
    return make(directory, shape, "float16", write_tiny_tokenizer)


def prove(artifact: Exported, standard: Standard) -> dict[str, float]:
    """Mean KL through decode and prefill; fails where the proof's own checks do."""
    gate = fidelity_gate(artifact.activations, standard.quality["noise"], artifact.kv_cache)
    with closing(TARGET.runtime(artifact)) as runtime:
        decode = compare_decode(runtime, standard, lambda _: None)
        prefill = compare_prefill(runtime, standard, lambda _: None)
    few = for_few_positions(gate, artifact.activations, len(prefill.kl_nats))
    checks = [*fidelity_checks("decode", decode, gate, ""), *fidelity_checks("prefill", prefill, few, "")]
    cost = added_noise_check(decode, standard, "")
    assert cost is not None
    return {
        "decode": decode.mean_kl, "prefill": prefill.mean_kl, "cost": float(decode.float_kl_nats.mean()),
        "failed": float(sum(not check.passed for check in [*checks, cost])),
    }  # fmt: skip


@pytest.mark.parametrize("case", ["float16", "int8", *FAMILIES])
def test_the_artifact_says_what_the_rounded_reference_says(
    tiny: Callable[..., Quantized], tmp_path: Path, case: str
) -> None:
    quantized = of_family(case, tmp_path) if case in FAMILIES else tiny(case)
    standard = standard_of(quantized)
    (tmp_path / "made").mkdir()
    found = prove(export(quantized, tmp_path / "made"), standard)
    assert not found["failed"], found
    if case != "int8":  # where nothing else is rounded, the model of the cache is much nearer than no model of it
        assert max(found["decode"], found["prefill"]) <= 0.2 * standard.quality["float_kl_nats"], found


def test_a_zero_that_is_off_by_one_fails_the_proof(
    tiny: Callable[..., Quantized], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kobako.targets.executorch.cache import RoundedCache

    write = RoundedCache.write

    def off_by_one(self: RoundedCache, name: str, states: Any) -> Any:
        return write(self, name, states + 1 if name.endswith("_zeros") else states)

    quantized = tiny("float16")
    with monkeypatch.context() as patch:
        patch.setattr(RoundedCache, "write", off_by_one)
        artifact = export(quantized, tmp_path)
    assert prove(artifact, standard_of(quantized))["failed"]


def test_a_float_cache_is_not_taken_for_a_rounded_one(tiny: Callable[..., Quantized], tmp_path: Path) -> None:
    """The reference really rounds: an artifact that keeps float32 is not what it models."""
    quantized = tiny("float16")
    artifact = TARGET.export(quantized, replace(OPTIONS, kv_cache="float"), tmp_path, no_progress)
    standard = standard_of(quantized)
    with closing(TARGET.runtime(artifact)) as runtime:
        found = compare_decode(runtime, standard, lambda _: None)
    assert found.mean_kl > 0.5 * standard.quality["float_kl_nats"] > 0
    assert float(found.float_kl_nats.mean()) < 0.1 * standard.quality["float_kl_nats"]


def test_the_runtime_rounds_bit_for_bit_as_the_reference(tmp_path: Path) -> None:
    """The cache alone, read back out of ExecuTorch: large, small, one-sided and empty vectors."""
    import torch
    from executorch.extension.pybindings.portable_lib import _load_for_executorch
    from kobako.pipeline.reference.kvcache import fake_int8_per_head

    slots, heads, depth = 64, 3, 32
    path = cache_alone(tmp_path / "cache.pte", slots, heads, depth)
    module = _load_for_executorch(str(path))
    generator = torch.Generator().manual_seed(0)
    for sign in (1.0, -1.0, 0.0):
        x = torch.randn(1, heads, slots, depth, generator=generator)
        x = x * 10 ** (torch.rand(1, heads, slots, 1, generator=generator) * 8 - 5)
        x = x if sign == 0.0 else sign * (x.abs() + x.abs().amax(-1, keepdim=True))
        x[:, :, 5], x[:, 0, 7] = 0.0, 1e-44
        for start in (0, slots - 9):  # a prompt, then more at the end: what was written before stays
            part = x[:, :, start:].contiguous()
            read = module.forward([part, -part, torch.tensor([start])])
            for found, wanted in zip(read, (x, -x), strict=True):
                np.testing.assert_array_equal(found.numpy(), fake_int8_per_head(wanted).transpose(1, 2).numpy())


def cache_alone(path: Path, slots: int, heads: int, depth: int) -> Path:
    """A .pte that writes keys and values ``[1, H, S, D]`` at a position and gives back what attention would read."""
    import torch
    from executorch.exir import to_edge
    from kobako.pipeline.reference.structure import LayerCache
    from kobako.targets.executorch.cache import RoundedCache, buffers
    from kobako.targets.executorch.decoder import register_operators
    from kobako.targets.executorch.position import Position

    class Alone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = Position(slots)
            for name, value in buffers([LayerCache(heads, depth, depth)], slots, "int8"):
                self.register_buffer(name, value)

        def forward(self, keys: torch.Tensor, values: torch.Tensor, start_pos: torch.Tensor) -> Any:
            start = start_pos[0].item()
            torch._check(start >= 0)
            torch._check(start + keys.shape[2] <= slots)
            self.position.begin(start)
            return RoundedCache(self.get_buffer, self.position).update(keys, values, 0)

    register_operators()
    example = (torch.zeros(1, heads, 3, depth), torch.zeros(1, heads, 3, depth), torch.zeros(1, dtype=torch.int64))
    length = torch.export.Dim("length", min=1, max=slots)
    program = torch.export.export(Alone(), example, dynamic_shapes=({2: length}, {2: length}, {}), strict=False)
    path.write_bytes(to_edge({"forward": program}).to_executorch().buffer)
    return path


def test_the_file_keeps_bytes_where_it_kept_floats(tiny: Callable[..., Quantized], tmp_path: Path) -> None:
    """Memory that the file plans for shrinks by the cache's floats, less what is expanded for one layer at a time."""
    from kobako.pipeline.codec import read_json
    from kobako.pipeline.kvcache import kv_cache_bytes

    quantized, planned = tiny("float16"), {}
    config = read_json(quantized.directory / "config.json")
    long: dict[str, ExportOptions] = {
        kind: ExportOptions(context_tokens=512, kv_cache=kind)
        for kind in ("float", "int8")  # type: ignore[arg-type]
    }
    for kind, options in long.items():
        out = tmp_path / kind
        out.mkdir()
        made = TARGET.export(quantized, options, out, no_progress)
        planned[kind] = TARGET.inspect(out / made.files[0])["methods"]["forward"]["planned_memory_bytes"]
    sizes = {kind: kv_cache_bytes(config, options, "executorch") for kind, options in long.items()}
    assert sizes == {"float": 512 * 2 * 2 * 2 * 16 * 4, "int8": 512 * 2 * 2 * 2 * (16 + 8)}
    one_layer = sizes["float"] // 2
    assert planned["int8"] - planned["float"] <= sizes["int8"] - sizes["float"] + 2 * one_layer
