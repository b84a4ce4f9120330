"""Packages at full context: resident memory and decode speed, in processes of their own that take turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOKENS = 32


def measured(package: Path) -> dict[str, float]:
    """In this process: load, read the context but for TOKENS, decode those; bytes, tokens a second, CPU ms a token."""
    from kobako import targets
    from kobako.pipeline.manifest import exported_of, read_manifest
    from kobako.pipeline.prooftext import PROOF_TEXT
    from kobako.pipeline.tokens import ShippedTokenizer

    manifest = read_manifest(package)
    exported = exported_of(package, manifest, "executorch")
    ids = ShippedTokenizer(exported.directory).encode(PROOF_TEXT.read_text(encoding="utf-8"))
    ids = (ids * (exported.context_tokens // len(ids) + 1))[: exported.context_tokens]
    runtime = targets.get("executorch").runtime(exported)
    runtime.feed(ids[:16])
    loaded = resident_bytes()
    for start in range(16, len(ids) - TOKENS, 128):
        runtime.feed(ids[start : min(start + 128, len(ids) - TOKENS)])
    began, busy = time.perf_counter(), time.process_time()
    for token in ids[-TOKENS:]:
        runtime.feed([token])
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    return {
        "start": loaded, "full": resident_bytes(), "speed": TOKENS / seconds, "cpu": 1e3 * busy / TOKENS,
        "cache": manifest["targets"]["executorch"]["needs"]["kv_cache_bytes"], "context": exported.context_tokens,
    }  # fmt: skip


def resident_bytes() -> int:
    """Resident memory of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def table(packages: list[Path], rounds: int) -> list[str]:
    """Lines of the table, medians over the rounds."""
    found: dict[Path, list[dict[str, float]]] = {package: [] for package in packages}
    for _ in range(rounds):
        for package in packages:
            command = [sys.executable, "-m", "kvcache", "one", str(package)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[package].append(json.loads(done.stdout.splitlines()[-1]))
    lines = [
        "| package | context | KV cache | resident at 16 tokens | at full context | decode there, tok/s | CPU ms |",
        "|---|" + "---|" * 6,
    ]
    for package, runs in found.items():
        keys = ("start", "full", "speed", "cpu")
        start, full, speed, cpu = (statistics.median(run[key] for run in runs) for key in keys)
        lines.append(
            f"| {package.name} | {runs[0]['context']:.0f} | {runs[0]['cache'] / 1e6:.1f} MB | {start / 1e6:.0f} MB | "
            f"{full / 1e6:.0f} MB | {speed:.1f} | {cpu:.1f} |"
        )
    return lines
