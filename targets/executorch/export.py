"""Quantized → ``model.pte`` with its tokenizer, for ExecuTorch's TextLLMRunner and react-native-executorch."""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kobako.pipeline import families
from kobako.pipeline.contracts import Activations, Exported, ExportOptions, Progress, Quantized, Recipe
from kobako.pipeline.errors import UnsupportedModel, UsageError
from kobako.pipeline.system import peak_rss_bytes

MODEL_FILE = "model.pte"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def activations(recipe: Recipe) -> Activations:
    """What XNNPACK computes in: float32 around float16 weights, int8 per token around integers."""
    return "float32" if recipe.weight_bits == 16 else "int8-dynamic"


def export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
    """Write ``model.pte``, ``tokenizer.json`` and ``tokenizer_config.json`` into `out`.

    Raises UnsupportedModel (rope, sliding window, operators XNNPACK lacks), UsageError (context).
    """
    begin = time.monotonic()
    config = check_context(quantized, options)
    copy_tokenizer(quantized.tokenizer_dir, out)
    figures = write_model(quantized, options, out / MODEL_FILE, progress, metadata(quantized, options, config))
    details = {
        **figures,
        "export_s": round(time.monotonic() - begin, 1),
        "peak_rss_bytes": peak_rss_bytes(),
        "model_bytes": (out / MODEL_FILE).stat().st_size,
    }
    return Exported(
        target="executorch",
        directory=out,
        files=(MODEL_FILE, *TOKENIZER_FILES),
        activations=activations(quantized.recipe),
        context_tokens=options.context_tokens,
        kv_cache=options.kv_cache,
        details=details,
    )


def write_model(
    quantized: Quantized,
    options: ExportOptions,
    path: Path,
    progress: Progress,
    constants: Mapping[str, Any],
    *,
    probe: bool = False,
) -> dict[str, Any]:
    """Trace, lower and write one .pte; figures about it."""
    from .assemble import Lowering, Method, executorch_program, host_module
    from .decoder import dynamic, example, graph_of
    from .functional import functionalize
    from .fuse import fuse_linears
    from .graph import simplify
    from .segments import split

    context, aliases = options.context_tokens, tied_head(quantized)
    with quiet_collector():
        progress(0.0, "tracing the model")
        flat, traced = graph_of(quantized, options, probe=probe)
        functionalize(flat)
        simplify(flat)
        fuse_linears(flat)
        steps = split(flat)
        lowering = Lowering(flat, steps, context, aliases, lookups(quantized))
        host = host_module(flat, steps, lowering, lambda part, words: progress(0.3 + 0.4 * part, words))
        progress(0.7, "emitting the program")
        program = executorch_program({"forward": Method(host, example(), dynamic(context), lowering.tables)}, constants)
        with path.open("wb") as file:
            program.write_to_file(file)
    return {
        "traced_layers": traced,
        "delegates": sum(step.segment is not None for step in steps),
        "host_operators": sum(len(step.host) for step in steps),
        "shared_table_bytes": share_tables(path, lowering.keys, aliases),
    }


def lookups(quantized: Quantized) -> dict[str, str]:
    """What the file says of the constants that are looked up: the embedding's name, and a per-layer table's."""
    from kobako.pipeline.reference.eager import open_table_of

    from .pte import EMBEDDING_ENTRY, ROWS_ENTRY
    from .rows import mapped

    told, table = {EMBEDDING_ENTRY: families.get(quantized.model_type).embedding}, open_table_of(quantized)
    if table is not None:
        rows, columns = mapped(table).shape
        told[ROWS_ENTRY] = f"{table.layout.parameter} {rows} {columns}"
    return told


def share_tables(path: Path, keys: Mapping[str, str], aliases: Mapping[str, str]) -> int:
    """Let the layers named in `aliases` read the embedding's bytes; bytes saved. `keys`: data key by constant."""
    from .pte import INSIDE
    from .share import share_segment

    heads = tuple(INSIDE + head.removesuffix("weight") for head in aliases)
    return sum(share_segment(path, key) for name, key in keys.items() if name.startswith(heads))


def tied_head(quantized: Quantized) -> dict[str, str]:
    """``{head: embedding}`` by parameter name when the head is the embedding's table, else empty."""
    family = families.get(quantized.model_type)
    config = json.loads((quantized.directory / "config.json").read_text())
    return {family.head: family.embedding} if config.get("tie_word_embeddings", True) else {}


@contextmanager
def quiet_collector() -> Iterator[None]:
    """No cyclic garbage collection within: graph passes keep millions of objects alive and it would scan them all."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.collect()


def check_context(quantized: Quantized, options: ExportOptions) -> dict[str, Any]:
    """The model's config.json. Raises UsageError or UnsupportedModel when the context or the model cannot be."""
    from kobako.pipeline.reference.eager import load_config
    from kobako.pipeline.reference.structure import check_decoder

    check_decoder(load_config(quantized.directory), options.context_tokens)
    config: dict[str, Any] = json.loads((quantized.directory / "config.json").read_text())
    if options.context_tokens < 8:
        raise UsageError(f"a context of {options.context_tokens} tokens is too short.", "Use at least 8.")
    return config


def stop_ids(quantized: Quantized, config: Mapping[str, Any]) -> list[int]:
    """All stop tokens of generation_config.json, or the config's own. Raises UnsupportedModel when there is none."""
    path = quantized.directory / "generation_config.json"
    generation = json.loads(path.read_text()) if path.is_file() else {}
    found = generation.get("eos_token_id", config.get("eos_token_id"))
    if found is None:
        raise UnsupportedModel("the model names no stop token: generation would never end.", "Set eos_token_id.")
    return list(found) if isinstance(found, list) else [int(found)]


def metadata(quantized: Quantized, options: ExportOptions, config: Mapping[str, Any]) -> dict[str, Any]:
    """The constant methods that runners ask a .pte for."""
    from kobako.pipeline.reference.eager import load_config
    from kobako.pipeline.reference.structure import cache_sizes

    stops = stop_ids(quantized, config)
    bos = config.get("bos_token_id")
    return {
        "get_max_seq_len": options.context_tokens,
        "get_max_context_len": options.context_tokens,
        "get_eos_ids": stops,
        "get_bos_id": stops[0] if bos is None else int(bos),
        "get_vocab_size": int(config["vocab_size"]),
        "get_n_layers": len(cache_sizes(load_config(quantized.directory))),
        "use_kv_cache": True,
        "enable_dynamic_shape": True,
        "use_sdpa_with_kv_cache": True,
    }


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer; the chat template goes inside its config, special tokens become plain strings.

    Source: react-native-executorch reads ``chat_template`` and ``eos_token`` from tokenizer_config.json only.
    """
    shutil.copyfile(source / "tokenizer.json", out / "tokenizer.json")
    config = json.loads((source / "tokenizer_config.json").read_text())
    template = source / "chat_template.jinja"
    if "chat_template" not in config and template.is_file():
        config["chat_template"] = template.read_text()
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if isinstance(config.get(key), dict):
            config[key] = config[key]["content"]
    (out / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1))
