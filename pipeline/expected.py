"""The stages in which PyTorch answers: the original while the weights are quantized, the quantized reference then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from . import families
from .cache import Entry, stage_key
from .codec import from_json, to_json
from .contracts import Expectations
from .estimate import jobs_that_fit
from .prepare import Loaded, Prepared
from .run import Run
from .stagecode import expect_inputs, original_inputs, quantize_inputs

AskOriginal = Callable[[], Entry]
"""Gives the stage ``original``, made by then or made now."""


@contextmanager
def original_beside(run: Run, loaded: Loaded, jobs: int, limit_bytes: int) -> Iterator[AskOriginal]:
    """Within the block, the original is asked, if there is room for it beside quantizing.

    Otherwise, or when what follows from its answers is known already, that is done when they are needed.
    """
    ask = partial(_original, run, loaded)
    fits = jobs_that_fit(loaded.need, ("quantize", "original"), jobs, limit_bytes) > 1
    if not fits or not has_original(loaded.reference.model_type) or _is_settled(run, loaded):
        yield ask
        return
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            yield asked.result
        except BaseException:
            run.workers.stop()
            raise


def has_original(model_type: str) -> bool:
    """Whether ``original`` is a stage of its own: encoders and encoder-decoders are asked in ``expect``."""
    return model_type not in families.names() or families.get(model_type).kind == "decoder"


def _is_settled(run: Run, loaded: Loaded) -> bool:
    """Whether ``expect`` is known; with a goal, whose recipe is still to be found, whether its search has begun."""
    request = run.request
    quantize_key = stage_key("quantize", quantize_inputs(loaded.key, request.recipe))
    if request.goal is not None:
        return run.cache.known("quantize", quantize_key) is not None
    inputs = expect_inputs(loaded.key, quantize_key, request.recipe, request.options, request.targets)
    return run.cache.known("expect", stage_key("expect", inputs)) is not None


def _original(run: Run, loaded: Loaded) -> Entry:
    inputs = original_inputs(loaded.key, run.request.options.context_tokens)
    return run.stage(
        "original",
        "original",
        inputs,
        lambda out: {"reference": to_json(loaded.reference), "context": inputs["context"], "out": str(out)},
    )


def expected(run: Run, prepared: Prepared, original: AskOriginal) -> tuple[Expectations, str]:
    """What artifacts must say, and the key of the stage ``expect``."""
    request, reference = run.request, prepared.loaded.reference
    inputs = expect_inputs(
        prepared.loaded.key, prepared.quantized_key, request.recipe, request.options, request.targets
    )
    needed = has_original(reference.model_type) and run.cache.known("expect", stage_key("expect", inputs)) is None
    asked = str(original().files) if needed else ""
    entry = run.stage(
        "expect",
        "expect",
        inputs,
        lambda out: {
            "original": asked,
            "reference": to_json(reference),
            "quantized": to_json(prepared.quantized),
            "activations": inputs["activations"],
            "options": to_json(request.options),
            "out": str(out),
        },
    )
    return from_json(entry.value, Expectations), entry.key
