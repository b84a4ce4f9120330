"""One layer's cache and attention in ExecuTorch's runtime: float32, int8 attention, and int8 expanded to float32.

Shape legend: S tokens fed at once, C slots, N query heads, H key/value heads, D head dimension.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from kobako.pipeline.reference.structure import CacheSizes
from kobako.targets.executorch.cache import CACHES, FloatCache, buffers
from kobako.targets.executorch.decoder import register_operators
from kobako.targets.executorch.position import Position

WAYS = ("float", "int8 attention", "expanded")
ROUNDS, CALLS = 5, 40


class Int8Attention(FloatCache):
    """Gives back what is stored, for ``llama.custom_quantized_sdpa``."""

    def stored(self, name: str, states: torch.Tensor) -> Any:
        """Write ``[1, S, H, D]``; codes, zeros and scales come back."""
        codes, scales, zeros = quantized(states)
        written = (("", codes), ("_zeros", zeros), ("_scales", scales))
        return tuple(self.write(name + end, part) for end, part in written)


def quantized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scales and zeros of ``[1, S, H, D]``, in the types that the operator takes."""
    ops = torch.ops.quantized_decomposed
    scales, zeros = ops.choose_qparams_per_token_asymmetric(x, torch.int8)
    codes = ops.quantize_per_token(x, scales, zeros, -128, 127, torch.int8)
    return codes, scales.to(torch.float32), zeros.to(torch.int8)


class Attention(torch.nn.Module):
    """``(query [1, S, N, D], keys and values [1, H, S, D], start [1])`` → ``[1, S, N, D]``."""

    def __init__(self, way: str, slots: int, heads: int, depth: int) -> None:
        super().__init__()
        self.way, self.position = way, Position(slots)
        sizes = CacheSizes(query_heads=heads, caches=((heads, depth),))
        for name, value in buffers(sizes, slots, "float" if way == "float" else "int8"):
            narrow = way == "int8 attention" and name.endswith("_zeros")
            self.register_buffer(name, value.to(torch.int8) if narrow else value)

    def forward(self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        start = at[0].item()
        torch._check(start >= 0)
        torch._check(start + query.shape[1] <= self.position.slots)
        self.position.begin(start)
        kinds = {"float": CACHES["float"], "expanded": CACHES["int8"], "int8 attention": Int8Attention}
        read: Any = kinds[self.way](self.get_buffer, self.position).update(keys, values, 0)
        if self.way != "int8 attention":
            return torch.ops.llama.custom_sdpa(query, *read, start, None, 0.0, True, None)
        codes, scales, zeros = quantized(query)
        (k, k_zeros, k_scales), (v, v_zeros, v_scales) = read
        parameters = (zeros, scales, k_zeros, k_scales, v_zeros, v_scales)
        return torch.ops.llama.custom_quantized_sdpa(codes, k, v, start, None, 0.0, True, None, *parameters, False)


def loaded(way: str, slots: int, queries: int, heads: int, depth: int, path: Path) -> Any:
    """The module in the C++ runtime."""
    from executorch.exir import to_edge
    from executorch.extension.pybindings.portable_lib import _load_for_executorch

    example = (
        torch.zeros(1, 3, queries, depth), torch.zeros(1, heads, 3, depth), torch.zeros(1, heads, 3, depth),
        torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip
    length = torch.export.Dim("length", min=1, max=slots)
    shapes = ({1: length}, {2: length}, {2: length}, {})
    module = Attention(way, slots, heads, depth)
    program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    path.write_bytes(to_edge({"forward": program}).to_executorch().buffer)
    return _load_for_executorch(str(path))


def table(slots: int, queries: int, heads: int, depth: int) -> list[str]:
    """Lines of the table: CPU microseconds of each way, medians of rounds in turns, and its error.

    CPU time, of all threads, is what a shared machine disturbs least.
    """
    register_operators()
    torch.manual_seed(0)
    query = torch.randn(1, slots, queries, depth)
    keys, values = torch.randn(1, heads, slots, depth), torch.randn(1, heads, slots, depth)

    def call(module: Any, start: int, end: int) -> torch.Tensor:
        parts = (query[:, start:end], keys[:, :, start:end], values[:, :, start:end])
        return module.forward([*(part.contiguous() for part in parts), torch.tensor([start])])[0].clone()

    with tempfile.TemporaryDirectory() as home:
        modules = {
            way: loaded(way, slots, queries, heads, depth, Path(home) / f"{n}.pte") for n, way in enumerate(WAYS)
        }
        answers = {way: call(module, 0, slots) for way, module in modules.items()}
        cases = [("one token at slot 100", 100, 101), (f"one token at slot {slots - 8}", slots - 8, slots - 7),
                 (f"a prompt of {slots // 2}", 0, slots // 2)]  # fmt: skip
        lines = ["| | " + " | ".join(WAYS) + " |", "|---|" + "---|" * len(WAYS)]
        for name, start, end in cases:
            calls = CALLS if end - start == 1 else 2
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way, module in modules.items():
                    began = time.process_time()
                    for _ in range(calls):
                        call(module, start, end)
                    times[way].append((time.process_time() - began) / calls * 1e6)
            lines.append(
                f"| {name}, CPU µs | " + " | ".join(f"{statistics.median(times[w]):,.0f}" for w in WAYS) + " |"
            )
    errors = [float((answers[way] - answers["float"]).square().mean().sqrt()) for way in WAYS]
    return [
        *lines,
        "| root mean square difference from float | " + " | ".join(f"{error:.1e}" for error in errors) + " |",
    ]
