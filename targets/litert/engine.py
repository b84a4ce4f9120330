"""``model.litertlm`` in the LiteRT-LM engine that apps use: text in, text out, greedy, on the CPU."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kobako.pipeline.errors import BadArtifact, UsageError
from kobako.pipeline.protocols import Generation, OnText

from . import container
from .modelfile import open_model

THREADS = 2


class LiteRTLMEngine:
    """Fulfils `protocols.Engine`. Raises BadArtifact for files the engine cannot load.

    The engine writes its packed weights beside the model unless told otherwise: they go to a scratch directory.
    """

    def __init__(self, path: Path, threads: int = THREADS) -> None:
        self.name = f"LiteRT-LM {version('litert-lm-api')}"
        section = container.model_section(path)
        open_model(path, section.begin, section.end)
        told = container.read_metadata(path)
        self.context_tokens = int(told["max_num_tokens"])
        self._start = str(told.get("start_token", {}).get("token_str", ""))
        self._scratch = tempfile.TemporaryDirectory(prefix="kobako-litert-")
        self._engine = _open(path, threads, self.context_tokens, self._scratch.name)

    def generate(self, prompt: str, max_new_tokens: int, on_text: OnText) -> Generation:
        """Continue `prompt` until a stop token or `max_new_tokens`. Raises UsageError when it exceeds the context."""
        prompt_tokens = len(self._engine.tokenize(prompt)) + bool(self._start)  # the session begins with it
        if not prompt_tokens or prompt_tokens >= self.context_tokens:
            raise UsageError(f"a prompt of {prompt_tokens} tokens does not fit the context of {self.context_tokens}.")
        room = min(max_new_tokens, self.context_tokens - prompt_tokens)
        pieces: list[str] = []
        started = time.perf_counter()
        first = started
        with self._session(room) as session:
            session.run_prefill([prompt])
            ended_early = False
            for response in session.run_decode_async():
                if ended_early:
                    continue
                if not pieces:
                    first = time.perf_counter()
                pieces.append(response.texts[0])
                ended_early = bool(on_text(response.texts[0]))
                if ended_early:
                    session.cancel_process()  # the iterator then ends by itself
            ended = time.perf_counter()
            generated = int(session.get_benchmark_info().last_decode_token_count)
        return Generation(
            text="".join(pieces),
            token_ids=None,
            prompt_tokens=prompt_tokens,
            generated_tokens=generated,
            prefill_s=first - started,
            decode_s=ended - first,
        )

    def render(self, text: str) -> str:
        """A user's message as the engine's own template renderer turns it into a prompt."""
        conversation = self._engine.create_conversation()
        try:
            return str(conversation.render_message_to_string({"role": "user", "content": text}))
        finally:
            conversation.close()

    @contextmanager
    def _session(self, max_new_tokens: int) -> Iterator[Any]:
        import litert_lm

        sampler = litert_lm.SamplerConfig(temperature=0.0, top_k=1, top_p=1.0)
        session = self._engine.create_session(
            apply_prompt_template=False, sampler_config=sampler, max_output_tokens=max_new_tokens
        )
        try:
            yield session
        finally:
            session.close()

    def close(self) -> None:
        """Give everything back; sessions are closed by then."""
        self._engine.close()
        self._scratch.cleanup()


def _open(path: Path, threads: int, context_tokens: int, cache_dir: str) -> Any:
    import litert_lm

    litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)
    try:
        return litert_lm.Engine(
            str(path),
            backend=litert_lm.Backend.CPU(thread_count=threads),
            max_num_tokens=context_tokens,
            cache_dir=cache_dir,
            enable_benchmark=True,  # the only source of token counts
        )
    except RuntimeError as error:
        raise BadArtifact(f"the LiteRT-LM engine cannot load {path.name}: {error}", "Build it again.") from error
