"""How fast and how large an encoder's artifact is in its runtime on this machine."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import closing

from ..contracts import Exported, Measurement, Progress
from ..prooftext import PROOF_TEXT
from ..protocols import Target
from ..system import peak_rss_bytes
from ..tokens import ShippedTokenizer

TEXT_TOKENS = 128
RUNS = 5


def measure(target: Target, exported: Exported, progress: Progress) -> Measurement:
    """Load the artifact and let it read 128 tokens, once and then five times; the median. Nothing is decoded."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    tokenizer = ShippedTokenizer(exported.directory)
    ids = tokenizer.encode_whole(PROOF_TEXT.read_text(encoding="utf-8"), min(TEXT_TOKENS, exported.context_tokens))
    progress(0.1, "loading")
    started = time.perf_counter()
    runtime = target.encoder(exported)
    load_s = time.perf_counter() - started
    seconds = []
    with closing(runtime):
        name = runtime.name
        for number in range(1 + RUNS):
            started = time.perf_counter()
            runtime.encode(ids, [1] * len(ids))
            seconds.append(time.perf_counter() - started)
            progress(0.2 + 0.7 * number / RUNS, "speed")
    return Measurement(
        target=exported.target,
        engine=name,
        load_s=load_s,
        first_token_s=seconds[0],
        prefill_tokens_per_s=len(ids) / statistics.median(seconds[1:]),
        decode_tokens_per_s=None,
        peak_rss_bytes=peak_rss_bytes(),
        bandwidth_share=None,
        threads=threads,
    )
