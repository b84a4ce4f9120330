"""Tables that the app's readers are tested with: ``python -m tests.unit.embeddings.phone_fixture`` writes them anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from kobako.pipeline.codec import json_text
from kobako.pipeline.contracts import FloatArray
from kobako.pipeline.embeddings import TableLayout, open_table, quantized_rows, write_table

HOME = Path(__file__).parents[3] / "mobile_demo" / "tests" / "fixtures" / "embeddings"
BITS = (4, 8, 16)
ROWS, LAYERS, WIDTH = 5, 3, 8


def values() -> FloatArray:
    """Float32 ``[V, L·D]``: both signs, a layer of zeros, and values that float16 holds below its normal range."""
    made = np.sin(np.arange(ROWS * LAYERS * WIDTH, dtype=np.float64) * 1.7).astype(np.float32).reshape(ROWS, -1)
    made[2, :WIDTH] = 0.0
    made[3] *= np.float32(2.0**-16)
    return made


def write(home: Path) -> None:
    """Write a table of each kind, and what its rows are, into `home`."""
    home.mkdir(parents=True, exist_ok=True)
    told = {}
    for bits in BITS:
        layout = TableLayout(
            model="tiny", parameter="model.embed_tokens_per_layer.weight", rows=ROWS, layers=LAYERS, width=WIDTH,
            bits=bits, multiplier=WIDTH**0.5,
        )  # fmt: skip
        table = values()
        path = home / f"{bits}bit.safetensors"
        write_table(path, layout, quantized_rows(lambda begin, end, table=table: table[begin:end], layout))
        told[path.name] = open_table(path).rows(range(ROWS)).reshape(ROWS, -1).tolist()
    (home / "rows.json").write_text(json_text(told) + "\n")


if __name__ == "__main__":
    write(HOME)
