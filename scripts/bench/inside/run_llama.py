"""In the llama.cpp environment: a GGUF file's logits and speed in llama.cpp.

usage: run_llama.py logits MODEL.gguf IDS.npy OUT.npy
       run_llama.py speed MODEL.gguf IDS.npy PROMPT_TOKENS DECODE_TOKENS THREADS RUNS
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from llama_cpp import Llama  # type: ignore[import-not-found]

CONTEXT_TOKENS = 1024


def logits(model: str, ids: str, out: str) -> dict[str, Any]:
    """Logits ``[N, V]`` of the text go to `out`."""
    tokens = np.load(ids).tolist()
    llama = Llama(model, n_ctx=CONTEXT_TOKENS, logits_all=True, verbose=False)
    llama.eval(tokens)
    np.save(out, np.asarray(llama.scores[: len(tokens)], dtype=np.float32))
    return {"runtime": f"llama-cpp-python {version('llama-cpp-python')}"}


def speed(model: str, ids: str, prompt_tokens: str, decode_tokens: str, threads: str, runs: str) -> dict[str, Any]:
    """Greedy runs after one that warms up; medians."""
    prompt, count = np.load(ids).tolist()[: int(prompt_tokens)], int(decode_tokens)
    llama = Llama(
        model, n_ctx=CONTEXT_TOKENS, n_threads=int(threads), n_threads_batch=int(threads), verbose=False
    )  # fmt: skip
    prefill, decode = [], []
    for _ in range(int(runs) + 1):
        llama.reset()
        started = time.perf_counter()
        llama.eval(prompt)
        token = llama.sample(temp=0.0)
        first = time.perf_counter()
        for _ in range(count - 1):
            llama.eval([token])
            token = llama.sample(temp=0.0)
        prefill.append(len(prompt) / (first - started))
        decode.append((count - 1) / (time.perf_counter() - first))
    return {
        "engine": f"llama-cpp-python {version('llama-cpp-python')}",
        "threads": int(threads),
        "prompt_tokens": len(prompt),
        "decode_tokens": count,
        "prefill_tokens_per_s": statistics.median(prefill[1:]),
        "decode_tokens_per_s": statistics.median(decode[1:]),
    }


if __name__ == "__main__":
    ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"logits": logits, "speed": speed}
    print(json.dumps(ACTIONS[sys.argv[1]](*sys.argv[2:])))
