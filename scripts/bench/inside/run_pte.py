"""In an environment with executorch: a .pte's logits in the C++ runtime, or its speed in ExecuTorch's TextLLMRunner.

usage: run_pte.py logits MODEL.pte IDS.npy OUT.npy
       run_pte.py speed MODEL.pte TOKENIZER.json PROMPT.txt DECODE_TOKENS THREADS RUNS
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["MKL_NUM_THREADS"] = "1"  # torch's MKL would start threads inside ExecuTorch's pool for every head

import executorch.extension.llm.custom_ops.custom_ops
import executorch.kernels.quantized  # noqa: F401  both register operators
import numpy as np
import torch
from executorch.extension.pybindings import portable_lib


def logits(model: str, ids: str, out: str) -> dict[str, Any]:
    """Feed the text token by token; logits ``[N, V]`` go to `out`."""
    module = portable_lib._load_for_executorch(model)
    rows = []
    for position, token in enumerate(np.load(ids).tolist()):
        answer = module.forward([torch.tensor([[token]]), torch.tensor([position])])[0]
        rows.append(answer.float().numpy().reshape(-1, answer.shape[-1])[-1].copy())
    np.save(out, np.stack(rows))
    return {"runtime": f"executorch {version('executorch')}"}


def speed(model: str, tokenizer: str, prompt: str, decode_tokens: str, threads: str, runs: str) -> dict[str, Any]:
    """Greedy runs of one prompt after one that warms up; medians."""
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner

    portable_lib._unsafe_reset_threadpool(int(threads))
    runner = TextLLMRunner(model, tokenizer)
    text = Path(prompt).read_text(encoding="utf-8")
    config = GenerationConfig(echo=False, max_new_tokens=int(decode_tokens), temperature=0.0, num_bos=0, num_eos=0)
    seen: list[tuple[int, float, int, float]] = []

    def keep(stats: Any) -> None:
        prefill_s = (stats.prompt_eval_end_ms - stats.inference_start_ms) / 1000
        decode_s = (stats.inference_end_ms - stats.prompt_eval_end_ms) / 1000  # as the engine reports it
        seen.append((stats.num_prompt_tokens, prefill_s, stats.num_generated_tokens, decode_s))

    for _ in range(int(runs) + 1):
        runner.reset()
        runner.generate(text, config, lambda _: None, keep)
    return {
        "engine": f"TextLLMRunner, executorch {version('executorch')}",
        "threads": portable_lib._threadpool_get_thread_count(),
        "prompt_tokens": seen[-1][0],
        "decode_tokens": seen[-1][2],
        "prefill_tokens_per_s": statistics.median(tokens / seconds for tokens, seconds, _, _ in seen[1:]),
        "decode_tokens_per_s": statistics.median(tokens / seconds for _, _, tokens, seconds in seen[1:]),
    }


if __name__ == "__main__":
    ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"logits": logits, "speed": speed}
    print(json.dumps(ACTIONS[sys.argv[1]](*sys.argv[2:])))
