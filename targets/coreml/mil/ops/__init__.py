"""What each MIL operation does, one module per kind; each module's OPS maps operation names to builders."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from ..site import Builder


@functools.cache
def table() -> Mapping[str, Builder]:
    """All operations the interpreter knows, by MIL name."""
    from . import elementwise, indexing, matrix, movement, reduction

    return {**elementwise.OPS, **indexing.OPS, **matrix.OPS, **movement.OPS, **reduction.OPS}
