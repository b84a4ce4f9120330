"""``model.pte`` in ExecuTorch's TextLLMRunner: the C++ engine that apps use, text in and text out.

The runner's Python binding hands each token over as UTF-8 and raises UnicodeDecodeError at a token that is half a
character (emoji, Japanese in a byte-level vocabulary). Such an answer is continued in the same C++ runtime, one
forward call a token; `Generation.token_ids` is set then and None otherwise. Apps in C++ have no such limit.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kobako.pipeline.contracts import Exported
from kobako.pipeline.errors import BadArtifact, UsageError
from kobako.pipeline.protocols import Generation, OnText
from kobako.pipeline.tokens import ShippedTokenizer

from .pte import HINT, open_pte
from .runtime import PteRuntime


class TextRunner:
    """Fulfils `protocols.Engine`: greedy, streaming, stops at the artifact's own stop tokens."""

    def __init__(self, exported: Exported) -> None:
        self.name = f"ExecuTorch {version('executorch')} TextLLMRunner"
        self.exported = exported
        path, tokenizer = exported.directory / exported.files[0], exported.directory / "tokenizer.json"
        with open_pte(path) as pte:
            self.context_tokens = int(pte.constant_method("get_max_context_len"))
            stops = pte.constant_method("get_eos_ids")
        self.stop_ids = stops if isinstance(stops, list) else [stops]
        self.specials = special_tokens(tokenizer)
        self.tokenizer = ShippedTokenizer(exported.directory)
        self.stops = {self.specials.get(stop) for stop in self.stop_ids}
        self.runner = load_runner(path, tokenizer)

    def generate(self, prompt: str, max_new_tokens: int, on_text: OnText) -> Generation:
        """Continue a rendered prompt. Raises UsageError when it does not fit into the context."""
        if not prompt or max_new_tokens < 1:
            raise UsageError("the prompt is empty or no token is wanted.", "Give both.")
        from executorch.extension.llm.runner import GenerationConfig

        pieces: list[str] = []
        figures: list[Any] = []
        ended: list[bool] = []

        def receive(piece: str) -> None:
            if piece in self.stops:  # the runner goes on when the very first token is a stop token
                ended.append(True)
                self.runner.stop()
            elif not ended and piece not in self.specials.values():
                pieces.append(piece)
                if on_text(piece):
                    ended.append(True)
                    self.runner.stop()

        # "warming" only keeps the runner from printing every piece to stdout by itself
        config = GenerationConfig(
            echo=False, max_new_tokens=max_new_tokens, temperature=0.0, warming=True, num_bos=self.added(prompt)
        )
        self.runner.reset()
        try:
            self.runner.generate(prompt, config, receive, lambda stats: figures.append(numbers(stats)))
        except UnicodeDecodeError:
            return self.continue_greedily(prompt, max_new_tokens, "".join(pieces), on_text)
        except RuntimeError as error:
            raise UsageError(
                f"the runner refused the prompt of {len(prompt)} characters: {error}.",
                f"Prompt and answer share {self.context_tokens} tokens.",
            ) from error
        return generation("".join(pieces), figures[-1])

    def added(self, prompt: str) -> int:
        """How many tokens the tokenizer puts before this prompt: the runner adds none by itself."""
        return len(self.tokenizer.encode_prompt(prompt)) - len(self.tokenizer.encode(prompt))

    def continue_greedily(self, prompt: str, max_new_tokens: int, said: str, on_text: OnText) -> Generation:
        """The same answer by forward calls; text beyond what was `said` already goes to `on_text`."""
        runtime, begin = PteRuntime(self.exported), time.monotonic()
        prompt_ids = self.tokenizer.encode_prompt(prompt)
        logits = runtime.feed(prompt_ids)
        first, ids = time.monotonic(), [int(logits.argmax())]
        while ids[-1] not in self.stop_ids and len(ids) < max_new_tokens and runtime.position < self.context_tokens:
            whole = self.tokenizer.decode(ids).rstrip("\ufffd")
            if on_text(whole[len(said) :]):
                break
            said = max(said, whole, key=len)
            ids.append(int(runtime.feed(ids[-1:]).argmax()))
        whole = self.tokenizer.decode(ids)
        on_text(whole[len(said) :])
        runtime.close()
        return Generation(
            text=whole,
            token_ids=tuple(ids),
            prompt_tokens=len(prompt_ids),
            generated_tokens=len(ids),
            prefill_s=first - begin,
            decode_s=time.monotonic() - first,
        )

    def close(self) -> None:
        """Give the runner back."""
        self.runner = None


def load_runner(path: Path, tokenizer: Path) -> Any:
    """ExecuTorch's runner for a model and a tokenizer. Raises BadArtifact."""
    import executorch.extension.llm.custom_ops.custom_ops
    import executorch.kernels.quantized  # noqa: F401
    from executorch.extension.llm.runner import TextLLMRunner

    try:
        return TextLLMRunner(str(path), str(tokenizer))
    except RuntimeError as error:
        raise BadArtifact(f"TextLLMRunner does not load {path.name}: {error}.", HINT) from error


def special_tokens(tokenizer: Path) -> dict[int, str]:
    """The tokens of tokenizer.json that are no text, by id: the runner decodes them like any other."""
    added = json.loads(tokenizer.read_text()).get("added_tokens", [])
    return {int(token["id"]): str(token["content"]) for token in added if token.get("special")}


def numbers(stats: Any) -> dict[str, int]:
    """The runner's statistics, copied while they live: milliseconds and counts."""
    names = ("inference_start_ms", "first_token_ms", "inference_end_ms", "num_prompt_tokens", "num_generated_tokens")
    return {name: int(getattr(stats, name)) for name in names}


def generation(text: str, figures: dict[str, int]) -> Generation:
    """The contract's value from the runner's figures; the runner tells no token ids."""
    return Generation(
        text=text,
        token_ids=None,
        prompt_tokens=figures["num_prompt_tokens"],
        generated_tokens=figures["num_generated_tokens"] + 1,  # the runner leaves the first one out
        prefill_s=(figures["first_token_ms"] - figures["inference_start_ms"]) / 1000,
        decode_s=(figures["inference_end_ms"] - figures["first_token_ms"]) / 1000,
    )
