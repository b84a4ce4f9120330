"""In an environment with LiteRT: a .tflite's logits in its interpreter, or a .litertlm's speed in the LiteRT-LM engine.

usage: run_litert.py logits MODEL.tflite IDS.npy OUT.npy THREADS
       run_litert.py speed MODEL.litertlm PROMPT.txt PROMPT_TOKENS DECODE_TOKENS THREADS RUNS
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

MASKED = -0.7 * float(np.finfo(np.float32).max)
"""What the LiteRT-LM engine writes where a token may not look."""


def logits(model: str, ids: str, out: str, threads: str) -> dict[str, Any]:
    """Feed the text token by token through signature ``decode``; logits ``[N, V]`` go to `out`."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=model, num_threads=int(threads)).get_signature_runner("decode")
    kinds = {name: (detail["shape"], detail["dtype"]) for name, detail in runner.get_input_details().items()}
    caches = {name: np.zeros(*kind) for name, kind in kinds.items() if name.startswith("kv_cache")}
    rows = []
    for position, token in enumerate(np.load(ids).tolist()):
        mask = np.full(kinds["mask"][0], MASKED, kinds["mask"][1])
        mask[..., : position + 1] = 0
        answer = runner(
            tokens=np.full(kinds["tokens"][0], token, kinds["tokens"][1]),
            input_pos=np.full(kinds["input_pos"][0], position, kinds["input_pos"][1]),
            mask=mask,
            **caches,
        )
        rows.append(answer.pop("logits").reshape(-1).astype(np.float32))
        caches = answer
    np.save(out, np.stack(rows))
    return {"runtime": f"ai-edge-litert {version('ai-edge-litert')}"}


def speed(model: str, prompt: str, prompt_tokens: str, decode_tokens: str, threads: str, runs: str) -> dict[str, Any]:
    """The engine's own benchmark, after a run that warms up; medians."""
    import litert_lm

    text, seen = Path(prompt).read_text(encoding="utf-8"), []
    for _ in range(int(runs) + 1):
        benchmark = litert_lm.Benchmark(
            model_path=model, backend=litert_lm.Backend.CPU(thread_count=int(threads)), prompt=text,
            prefill_tokens=int(prompt_tokens), decode_tokens=int(decode_tokens),
        )  # fmt: skip
        seen.append(benchmark.run())
    return {
        "engine": f"LiteRT-LM {version('litert-lm-api')}",
        "threads": int(threads),
        "prompt_tokens": seen[-1].last_prefill_token_count,
        "decode_tokens": seen[-1].last_decode_token_count,
        "prefill_tokens_per_s": statistics.median(run.last_prefill_tokens_per_second for run in seen[1:]),
        "decode_tokens_per_s": statistics.median(run.last_decode_tokens_per_second for run in seen[1:]),
    }


if __name__ == "__main__":
    ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"logits": logits, "speed": speed}
    print(json.dumps(ACTIONS[sys.argv[1]](*sys.argv[2:])))
