"""Rows of a per-layer table, looked up and unpacked inside the graph, in portable operators.

The table is one constant of the .pte, the very bytes of the table file. Where the file is mapped, what a token needs of
the table lies on one or two pages, and nothing else of it is ever read.

Shape legend: S tokens fed at once (dynamic), V rows, L layers, W values of a layer.
"""

from __future__ import annotations

import numpy as np
import torch
from kobako.pipeline.embeddings import Table
from torch import nn

from .mapped import mapped_bytes

EXPONENT_BIAS = 127
"""Of float32 and bfloat16."""


class RowsEmbedding(nn.Module):
    """An embedding whose rows are those of a table: codes and a bfloat16 scale for each layer.

    Bytes are taken for 0…255: the runtime's remainder and division of negative numbers are not torch's.
    """

    rows: torch.Tensor
    powers: torch.Tensor

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.layout = table.layout
        self.register_buffer("rows", mapped(table))
        powers = np.ldexp(1.0, np.arange(256) - EXPONENT_BIAS).astype(np.float32)
        powers[255] = 0.0  # infinities and NaN, which no scale is
        self.register_buffer("powers", torch.from_numpy(powers))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 ``[1, S]`` → float32 ``[1, S, L·W]``, times the model's own scale of rows."""
        layout = self.layout
        found = self.rows.index_select(0, ids[0])
        if layout.bits == 16:
            return (found.to(torch.float32) * layout.multiplier)[None]
        records = found.unflatten(1, (layout.layers, layout.record_bytes)).to(torch.int32)
        values = self.codes(records.narrow(2, 0, layout.code_bytes)).to(torch.float32)
        scales = self.scales(records.narrow(2, layout.code_bytes, 2))
        return (values * scales * layout.multiplier).flatten(1)[None]

    def codes(self, packed: torch.Tensor) -> torch.Tensor:
        """int32 bytes ``[S, L, code bytes]`` → codes ``[S, L, W]``; the upper half of a range stands for −half…−1."""
        if self.layout.bits == 8:
            return packed - 256 * torch.div(packed, 128, rounding_mode="floor")
        high = torch.div(packed, 16, rounding_mode="floor")
        halves = torch.stack([torch.remainder(packed, 16), high], dim=-1).flatten(2)
        return halves - 16 * torch.div(halves, 8, rounding_mode="floor")

    def scales(self, halves: torch.Tensor) -> torch.Tensor:
        """int32 bytes ``[S, L, 2]`` of positive bfloat16 values, low byte first → float32 ``[S, L, 1]``.

        The exponent is looked up, since no portable operator takes bits for what they are.
        """
        low, high = halves.narrow(2, 0, 1), halves.narrow(2, 1, 1)
        exponents = high * 2 + torch.div(low, 128, rounding_mode="floor")
        powers = self.powers.index_select(0, exponents.flatten().to(torch.int64)).view(exponents.shape)
        return powers * (torch.remainder(low, 128).to(torch.float32) / 128.0 + 1.0)


def mapped(table: Table) -> torch.Tensor:
    """All rows, uint8 ``[V, row bytes]`` or float16 ``[V, L·W]``, as a tensor over the mapped file."""
    layout = table.layout
    shape = (layout.rows, layout.row_bytes)
    data = mapped_bytes(table.path, table.begin, layout.rows * layout.row_bytes).reshape(shape)
    return torch.from_numpy(data.view(np.float16) if layout.bits == 16 else data)
