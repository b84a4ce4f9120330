"""Whether a source that is quantized already keeps its own grid through a recipe: words for ``kobako plan``."""

from __future__ import annotations

import json
import math

from ..contracts import Recipe, Source
from . import gguf
from .prequantized import BLOCK, packing_of
from .weights import gguf_path

GGML_4BIT = {2: "Q4_0", 3: "Q4_1", 12: "Q4_K"}
"""GGML's types of equidistant 4-bit values in blocks of 32."""
GGML_FLOATS = (0, 1, 30)


def source_grid(source: Source, recipe: Recipe) -> str:
    """One sentence on the source's grid; empty for float weights. Raises what reading the header raises."""
    if source.format == "gguf":
        return _of_gguf(gguf.read_header(gguf_path(source)), recipe)
    packing = packing_of(json.loads((source.directory / "config.json").read_text()))
    if packing is None:
        return ""
    groups = "a scale per row" if packing.group_size is None else f"groups of {packing.group_size}"
    said = f"The source is quantized by {packing.method} ({packing.bits} bits, {groups})"
    if loss := packing.loss_of_grid(recipe):
        return f"{said}; its weights are rounded anew, since {loss}."
    return f"{said}; recipe {recipe.name} keeps its grid."


def _of_gguf(header: gguf.Gguf, recipe: Recipe) -> str:
    matrices = [tensor for tensor in header.tensors.values() if len(tensor.shape) > 1]
    sizes = {kind: 0 for kind in {tensor.ggml_type for tensor in matrices}}
    for tensor in matrices:
        sizes[tensor.ggml_type] += math.prod(tensor.shape)
    if not sizes or set(sizes) <= set(GGML_FLOATS):
        return ""
    share = sum(size for kind, size in sizes.items() if kind in GGML_4BIT) / sum(sizes.values())
    said = f"{share:.0%} of the file's weights lie in 4-bit blocks of {BLOCK}"
    if recipe.weight_bits != 4 or not recipe.asymmetric:
        return f"{said}; recipe {recipe.name} has another grid, so they are rounded anew." if share else ""
    return f"{said}, which recipe {recipe.name} keeps; the others are rounded anew."
