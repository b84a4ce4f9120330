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

    Otherwise, or when the weights are quantized already, that is done when its answers are needed.
    """
    ask = partial(_original, run, loaded)
    quantized = run.cache.find("quantize", stage_key("quantize", quantize_inputs(loaded.key, run.request.recipe)))
    fits = jobs_that_fit(loaded.need, ("quantize", "original"), jobs, limit_bytes) > 1
    if quantized or not fits or not has_original(loaded.reference.model_type):
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
    return families.get(model_type).kind == "decoder"


def _original(run: Run, loaded: Loaded) -> Entry:
    context = run.request.options.context_tokens
    return run.stage(
        "original",
        "original",
        original_inputs(loaded.key, context),
        lambda out: {"reference": to_json(loaded.reference), "context": context, "out": str(out)},
    )


def expected(run: Run, prepared: Prepared, original: AskOriginal) -> tuple[Expectations, str]:
    """What artifacts must say, and the key of the stage ``expect``."""
    request, reference = run.request, prepared.loaded.reference
    inputs = expect_inputs(
        prepared.loaded.key, prepared.quantized_key, request.recipe, request.options, request.targets
    )
    known = run.cache.find("expect", stage_key("expect", inputs))
    asked = str(original().files) if not known and has_original(reference.model_type) else ""
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
