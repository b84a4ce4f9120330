"""What the families' tests measure, kept for docs/support.md."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[str, Any]]:
    """What was measured, by family; added to $KOBAKO_SUPPORT at the end."""
    found: dict[str, Any] = {}
    yield found
    if out := os.environ.get("KOBAKO_SUPPORT"):
        known = json.loads(Path(out).read_text()) if Path(out).is_file() else {}
        Path(out).write_text(json.dumps(known | found, indent=1) + "\n")
