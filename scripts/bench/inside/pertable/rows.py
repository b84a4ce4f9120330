"""The file alone: writing it, rows cold and warm, pages per token, the row cache on real text."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from kobako.pipeline.embeddings import RowCache, Table, TableLayout, open_table, write_table
from kobako.pipeline.prooftext import PROOF_TEXT
from kobako.pipeline.weights import WeightTensor, round_to_nearest

from . import memory

PAGE_BYTES = 4096
BLOCK_ROWS = 512
SAMPLED = 2000


def random_rows(layout: TableLayout) -> Iterator[WeightTensor]:
    """As many random rows as a layout has; one block, given out again and again."""
    values = np.random.default_rng(0).standard_normal((BLOCK_ROWS, layout.layers * layout.width)).astype(np.float32)
    block: Any = round_to_nearest(values, layout.bits, layout.width)
    whole, rest = divmod(layout.rows, BLOCK_ROWS)
    for _ in range(whole):
        yield block
    if rest:
        yield round_to_nearest(values[:rest], layout.bits, layout.width)


def measure(work: Path, layout: TableLayout) -> dict[str, Any]:
    """All figures of one layout; the table is left at `work`/table.safetensors."""
    path = work / "table.safetensors"
    before, started = memory.private_bytes(), time.perf_counter()
    write_table(path, layout, random_rows(layout))
    written_s, grown = time.perf_counter() - started, memory.private_bytes() - before
    ids = np.random.default_rng(1).integers(0, layout.rows, SAMPLED)
    return {
        "table_bytes": layout.data_bytes,
        "row_bytes": layout.row_bytes,
        "write_s": round(written_s, 1),
        "write_private_bytes": grown,
        **cold(path, ids),
        **warm(open_table(path, read_ahead=False), ids),
        **cached(open_table(path, read_ahead=False)),
    }


def cold(path: Path, ids: Any) -> dict[str, Any]:
    """Rows that are on the disk only: time, and pages that became resident."""
    memory.forget(path)
    table = open_table(path, read_ahead=False)
    faults, started = memory.major_faults(), time.perf_counter()
    for token in ids:
        table.rows([token])
    spent = time.perf_counter() - started
    return {
        "cold_us_per_row": round(1e6 * spent / len(ids), 1),
        "pages_per_row": round(memory.resident_bytes(path) / PAGE_BYTES / len(set(map(int, ids))), 2),
        "disk_reads_per_row": round((memory.major_faults() - faults) / len(ids), 2),
        "resident_bytes_after": memory.resident_bytes(path),
    }


def warm(table: Table, ids: Any) -> dict[str, Any]:
    """The same rows once they are in the kernel's cache: fetched as bytes, and as float32."""
    times = {}
    for name, look in (("warm_us_per_row_bytes", lambda i: table.data[i].tobytes()), ("warm_us_per_row", table.rows)):
        for _ in range(2):
            started = time.perf_counter()
            for token in ids:
                look([token])
            times[name] = round(1e6 * (time.perf_counter() - started) / len(ids), 1)
    return {**times, "rows_per_s": round(1e6 / times["warm_us_per_row"])}


def cached(table: Table) -> dict[str, Any]:
    """How often the words of the proof text find their row kept; a word stands for a token."""
    words = PROOF_TEXT.read_text(encoding="utf-8").split()
    ids = [zlib.crc32(word.encode()) % table.layout.rows for word in words]
    found: dict[str, Any] = {"text_words": len(ids)}
    for capacity in (64, 256, 1024):
        cache = RowCache(table, capacity)
        for token in ids:
            cache.rows([token])
        found[f"hit_rate_{capacity}"] = round(cache.hit_rate, 3)
        found[f"kept_bytes_{capacity}"] = cache.kept_bytes
    return found
