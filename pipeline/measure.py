"""How fast and how large an artifact is in its engine on this machine, beside what the memory could give at best."""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np

from .contracts import Exported, Measurement, Progress
from .errors import BadArtifact
from .prooftext import PROOF_TEXT
from .protocols import Engine, Generation, Target
from .seq2seq.engine import engine_of
from .system import peak_rss_bytes
from .tokens import ShippedTokenizer

PROMPT_TOKENS = 128
DECODE_TOKENS = 64
RUNS = 3
BANDWIDTH_BYTES = 256 * 2**20


def memory_bandwidth_bytes_per_s(threads: int) -> float:
    """Bytes per second that `threads` can read from memory: the best of five passes over 256 MiB."""
    data = np.ones(BANDWIDTH_BYTES // 8, dtype=np.uint64)
    parts = np.array_split(data, threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            started = time.perf_counter()
            list(pool.map(np.bitwise_or.reduce, parts))
            best = max(best, BANDWIDTH_BYTES / (time.perf_counter() - started))
    return best


def measure(target: Target, exported: Exported, weight_bytes: int, progress: Progress) -> Measurement:
    """Load the artifact in its engine, read a prompt of 128 tokens and decode 64, three times; medians.

    `weight_bytes` are read once per decoded token. Raises BadArtifact when the engine says less than two tokens.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    tokenizer = ShippedTokenizer(exported.directory)
    prompt_tokens = min(PROMPT_TOKENS, exported.context_tokens // 2)
    prompt = tokenizer.decode(tokenizer.encode(PROOF_TEXT.read_text(encoding="utf-8"))[:prompt_tokens])
    progress(0.1, "loading")
    started = time.perf_counter()
    engine = engine_of(target, exported)
    load_s = time.perf_counter() - started
    name = engine.name
    with closing(engine):
        first = engine.generate(prompt, 2, _silent).prefill_s
        runs = [_run(engine, prompt, exported, progress, number) for number in range(RUNS)]
    peak = peak_rss_bytes()
    decode = statistics.median((run.generated_tokens - 1) / run.decode_s for run in runs)
    return Measurement(
        target=exported.target,
        engine=name,
        load_s=load_s,
        first_token_s=first,
        prefill_tokens_per_s=statistics.median(run.prompt_tokens / run.prefill_s for run in runs),
        decode_tokens_per_s=decode,
        peak_rss_bytes=peak,
        bandwidth_share=decode * weight_bytes / memory_bandwidth_bytes_per_s(threads),
        threads=threads,
    )


def _run(engine: Engine, prompt: str, exported: Exported, progress: Progress, number: int) -> Generation:
    tokens = min(DECODE_TOKENS, exported.context_tokens // 4)
    run = engine.generate(prompt, tokens, _silent)
    if run.generated_tokens < 2 or run.decode_s <= 0:
        raise BadArtifact(f"the engine said only {run.text!r} after {prompt[:40]!r}…", "See the proof's greedy text.")
    progress(0.2 + 0.7 * (number + 1) / RUNS, "speed")
    return run


def _silent(piece: str) -> None:
    """An on_text for a run that is only timed."""
