"""Quantized → ``model.tflite`` and ``model.litertlm``, with the codes and scales exactly as they were given."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kobako.pipeline import families
from kobako.pipeline.contracts import Exported, ExportOptions, Progress, Quantized, Recipe
from kobako.pipeline.errors import UnsupportedModel, UsageError
from kobako.pipeline.reference.layers import Plan, cut, plan
from kobako.pipeline.reference.structure import check_decoder
from kobako.pipeline.templates import portable
from kobako.pipeline.tokens import ShippedTokenizer, stop_ids

from . import CONTAINER_FILE, MODEL_FILE, TARGET, trace
from .container import LanguageModel, write_container
from .flatbuffer import INLINE_LIMIT_BYTES, load_model, write_model
from .replicate import replicate
from .rewrite import rewrite
from .stored import stored_parameters

SHARE_TRACING = 0.8
"""Part of the export's time that tracing takes, for progress."""


def export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
    """Write both files and the tokenizer into `out`.

    Raises UnsupportedModel (rope, sliding windows, chat template), UnsupportedRecipe, UsageError (context).
    """
    from kobako.pipeline.reference.eager import open_table_of

    family = families.get(quantized.model_type)
    language_model = describe(quantized, options, family)
    model = graph(quantized, options, family, lambda part, text: progress(part * SHARE_TRACING, text))
    progress(SHARE_TRACING, "writing weights")
    table = open_table_of(quantized)
    rewrite(model, stored_parameters(quantized.directory), table)
    # a table goes from file to file, behind a flatbuffer that is made in memory
    write_model(model, out / MODEL_FILE, INLINE_LIMIT_BYTES if table is None else 0)
    progress(0.95, "packing")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(quantized.tokenizer_dir / name, out / name)
    write_container(out / CONTAINER_FILE, out / MODEL_FILE, out / "tokenizer.json", language_model)
    progress(1.0, "done")
    return Exported(
        target=TARGET.name,
        directory=out,
        files=(CONTAINER_FILE, MODEL_FILE, "tokenizer.json", "tokenizer_config.json"),
        activations=TARGET.activations(quantized.recipe),
        context_tokens=options.context_tokens,
        details=_details(quantized.recipe, options, language_model),
    )


def _details(recipe: Recipe, options: ExportOptions, language_model: LanguageModel) -> Mapping[str, Any]:
    return {
        "signatures": [_prefill_name(options), trace.DECODE],
        "prefill_tokens": options.prefill_tokens,
        "stop_ids": list(language_model.stop_ids),
        "model_type": language_model.model_type,
        # measured by scripts/compat_tflite_runtime: it has no per-channel dynamic FULLY_CONNECTED
        "tflite_runtime_2_14": "runs" if recipe.weight_bits == 16 else "refuses",
        "chat_template": "portable" if language_model.chat_template else "none",
    }


def _prefill_name(options: ExportOptions) -> str:
    return f"prefill_{options.prefill_tokens}"


def describe(quantized: Quantized, options: ExportOptions, family: families.Family) -> LanguageModel:
    """What the engine is told beside the graph. Raises UnsupportedModel when the chat template cannot be ported."""
    tokenizer = ShippedTokenizer(quantized.tokenizer_dir)
    stops = stop_ids(quantized.directory)
    special = tokenizer.special_tokens
    bos = special["bos_token"]
    prepends_bos = bool(bos) and tokenizer.encode_prompt("x")[:1] == tokenizer.encode(bos) != tokenizer.encode("x")[:1]
    return LanguageModel(
        context_tokens=options.context_tokens,
        stop_ids=stops,
        stop_texts=tuple(token_text(quantized.tokenizer_dir, token_id) for token_id in stops),
        start_text=bos if prepends_bos else None,
        model_type=family.litert_lm_model_type,
        chat_template=portable(tokenizer.chat_template, special) if tokenizer.chat_template else "",
    )


def token_text(tokenizer_dir: Path, token_id: int) -> str:
    """How a token is written. Raises UnsupportedModel for an id outside the vocabulary."""
    from tokenizers import Tokenizer

    text = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json")).id_to_token(token_id)
    if text is None:
        raise UnsupportedModel(f"stop token {token_id} is not in the tokenizer's vocabulary.")
    return str(text)


def check(config: Any, options: ExportOptions) -> None:
    """Raise UnsupportedModel or UsageError for what this export would get wrong."""
    check_decoder(config, options.context_tokens)
    if options.prefill_tokens > options.context_tokens or options.prefill_tokens < 2:
        raise UsageError(
            f"a prefill of {options.prefill_tokens} tokens does not fit a context of {options.context_tokens}."
        )


def graph(quantized: Quantized, options: ExportOptions, family: families.Family, progress: Progress) -> Any:
    """The traced graph of the whole model, from a few of its layers where others are like them."""
    from kobako.pipeline.reference.eager import load_config

    config = load_config(quantized.directory)
    check(config, options)
    if (part := plan(config)) is not None:
        model = load_model(_trace(copy.deepcopy(config), options, family, progress, part))
        if replicate(model, part, family.layers):
            return model
    return load_model(_trace(config, options, family, progress))


def _trace(
    config: Any, options: ExportOptions, family: families.Family, progress: Progress, part: Plan | None = None
) -> bytes:
    from kobako.pipeline.reference.eager import empty_model

    positions = trace.Positions()
    trace.register_attention(positions)
    model = empty_model(config, trace.ATTENTION)
    if part is not None:
        cut(model, family.layers, part.traced)
    trace.tabulate(model, options.context_tokens)
    trace.mark_layers(model.get_submodule(family.layers))
    calls = (
        trace.Call(name=_prefill_name(options), tokens=options.prefill_tokens, logits=False),
        trace.Call(name=trace.DECODE, tokens=1, logits=True),
    )
    return trace.trace(model, calls, options.context_tokens, positions, progress)
