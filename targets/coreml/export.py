"""Quantized → ``model.mlpackage``: two functions, ``prefill`` and ``decode``, that share every weight and state."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kobako.pipeline import families
from kobako.pipeline.contracts import Exported, ExportOptions, Progress, Quantized
from kobako.pipeline.embeddings import TABLE_FILE, link_table
from kobako.pipeline.errors import UsageError
from kobako.pipeline.reference.eager import open_table_of
from kobako.pipeline.tokens import stop_ids
from kobako.pipeline.weights import open_weights

from . import PACKAGE
from .assemble import WeightFile, function_proto, matrices, model_proto, write_package
from .lower import Lowered, lower, value_name
from .selfdescription import SelfDescription

if TYPE_CHECKING:
    from .graph import StatefulModel

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def export(quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
    """Write ``model.mlpackage`` and the tokenizer into the existing, empty directory `out`.

    Raises UnsupportedModel for an architecture the trace cannot hold, UsageError for impossible lengths.
    """
    check_lengths(options)
    progress(0.0, "importing")
    from .graph import stateful_model

    model, shapes = stateful_model(quantized, options.context_tokens)
    lowered, layers = functions(quantized, options, model, shapes, progress)
    progress(0.9, "writing weights")
    description = describe(quantized, options, list(shapes), len(model.sizes.caches), model.sizes.vocabulary)
    write(quantized, lowered, list(shapes), description.metadata(), out, default="decode")
    for name in TOKENIZER_FILES:
        shutil.copyfile(quantized.tokenizer_dir / name, out / name)
    progress(1.0, "done")
    files = tuple(sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()))
    if description.table:
        link_table(quantized.directory, out)
    return Exported(
        target="coreml", directory=out, files=files, activations="float16", context_tokens=options.context_tokens,
        table=TABLE_FILE if description.table else None,
        details={"functions": sorted(lowered), "prefill_tokens": options.prefill_tokens, "minimum_ios": 18,
                 "converted_layers": layers},
    )  # fmt: skip


def functions(
    quantized: Quantized, options: ExportOptions, model: StatefulModel, shapes: dict[str, tuple[int, ...]],
    progress: Progress,
) -> tuple[dict[str, Lowered], int]:  # fmt: skip
    """Both functions, and how many of their layers were converted: the others are copies of these."""
    from .graph import stateful_model
    from .prototype import cut, plan
    from .replicate import expanded

    chunks = {"decode": 1, "prefill": options.prefill_tokens}

    def each(model: StatefulModel, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Lowered]]:
        for count, (name, chunk) in enumerate(chunks.items()):
            progress(0.1 + 0.4 * count, f"converting {name}")
            yield name, lower(model, shapes, chunk)

    layers = len(model.model.get_submodule(families.get(quantized.model_type).layers))
    if few := plan(model, shapes, families.get(quantized.model_type).layers):
        fed = cut(model, shapes, few)
        whole = {name: expanded(one, few) for name, one in each(model, fed)}
        if all(whole.values()):
            return {name: one for name, one in whole.items() if one}, len(few.kept)
        model, _ = stateful_model(quantized, options.context_tokens)
    return dict(each(model, shapes)), layers


def write(
    quantized: Quantized, lowered: Mapping[str, Lowered], names: list[str], metadata: Mapping[str, str], out: Path,
    *, default: str,
) -> None:  # fmt: skip
    """Assemble the functions and write the package; `default` is the one that Core ML loads unasked."""
    weight_file = out / "weight.bin"
    file = WeightFile(weight_file)
    constants = matrices(open_weights(quantized.directory), names, file)
    functions = {name: function_proto(one, constants, file) for name, one in lowered.items()}
    del file  # the writer completes the file when it goes
    model = model_proto(functions, lowered, constants, metadata, default=default)
    write_package(out / PACKAGE, model, weight_file)


def check_lengths(options: ExportOptions) -> None:
    """Raise UsageError when the context or the chunk cannot be."""
    if not 1 < options.prefill_tokens <= options.context_tokens:
        raise UsageError(
            f"prefill chunks of {options.prefill_tokens} tokens do not fit a context of {options.context_tokens}.",
            "Choose a chunk of 2 tokens up to the context length.",
        )


def describe(
    quantized: Quantized, options: ExportOptions, names: list[str], layers: int, vocabulary: int
) -> SelfDescription:
    """What the package says about itself."""
    outside = open_table_of(quantized)
    return SelfDescription(
        name=quantized.name, model_type=quantized.model_type, recipe=quantized.recipe.name,
        context_tokens=options.context_tokens, prefill_tokens=options.prefill_tokens, layers=layers,
        vocabulary=vocabulary, stop_ids=stop_ids(quantized.directory),
        weights={value_name(name): name for name in names}, table="" if outside is None else outside.layout.parameter,
    )  # fmt: skip
