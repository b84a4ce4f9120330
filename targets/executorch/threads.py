"""One pool of threads: ExecuTorch's own."""

from __future__ import annotations

import os


def leave_threads_to_executorch() -> None:
    """Keep MKL from starting threads of its own; only before torch is first imported in a process does this help.

    On x86-64 the wheel's attention multiplies its matrices with torch's MKL, which, from about 120 positions on, would
    wake OpenMP threads for every head, inside ExecuTorch's pool: a token then took three times as long. Phones have no
    MKL.
    """
    os.environ["MKL_NUM_THREADS"] = "1"
