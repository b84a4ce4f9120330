"""Per-layer embedding tables, kept outside the graph: one file per model and recipe, read row by row.

Gemma 3n and Gemma 4 give every decoder layer a vector of its own for each token: a table ``[V, L, D]`` that is most of
the model, of which a text needs a few rows. Here such a table is one file whose rows hold what one token needs in all
layers, next to each other: mapped into memory, a token costs one or two pages.

`layout` says what a row is made of, `extract` quantizes rows, `writer` writes them as they come, `reader` maps them.

Shape legend: V rows (tokens), L layers, D width of one layer's vector, N rows at once.
"""

from .extract import quantized_rows
from .layout import FORMAT, TABLE_FILE, TENSOR, TableLayout
from .place import link_table, table_path
from .reader import RowCache, Table, open_table
from .writer import write_table

__all__ = [
    "FORMAT", "TABLE_FILE", "TENSOR", "RowCache", "Table", "TableLayout", "link_table", "open_table", "quantized_rows",
    "table_path", "write_table",
]  # fmt: skip
