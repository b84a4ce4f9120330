"""Reference + Recipe → Quantized: integer codes and scales, decided once for every target.

First outliers move from activations into weights (`smooth`). Then linear layers are rounded: to nearest on a symmetric
grid, or (recipes with ``gptq`` rounding) layer after layer on what the already quantized layers say (`calibrate`), each
matrix with its errors made good in the columns that follow (`gptq`), in asymmetric blocks (`blocks`). Token embedding
and head get one scale per row, or blocks like everything else. The rest stays float32.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import blocks, families
from .calibrate import Examples, input_moments, quantize_layers
from .calibration import calibration_ids, calibration_pieces
from .contracts import FloatArray, Progress, Quantized, Recipe, Reference, no_progress
from .embeddings import TABLE_FILE, TableLayout, quantized_rows, write_table
from .embeddings.layout import Bits
from .errors import IntegrityError, UnsupportedRecipe
from .gptq import gptq
from .heads import HEAD_FILE, find_head
from .scheme import Role, Scheme, bits_of, parameter_roles, rounds_without_loss, smoothed
from .tokens import ShippedTokenizer
from .weights import WEIGHTS_FILE, QuantizedTensor, WeightTensor, dequantized, round_to_nearest, write_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .reference.rowreader import RowReader

COPIED = ("config.json", "generation_config.json", HEAD_FILE)


def quantize_tensor(
    name: str, value: FloatArray, role: Role, recipe: Recipe, moments: FloatArray | None = None
) -> WeightTensor:
    """One parameter as the recipe wants it; `moments` ``[I, I]``: what its inputs are like on the calibration text.

    Raises IntegrityError for NaN or infinite values, UnsupportedRecipe when the group size does not divide the inputs.
    """
    if not np.isfinite(value.sum(dtype=np.float64)):
        raise IntegrityError(f"{name} holds NaN or infinite values.", "The checkpoint is damaged: fetch it again.")
    bits = bits_of(name, role, recipe)
    if bits == 32:
        return value.astype(np.float32)
    if bits == 16:
        return value.astype(np.float16)
    if bits == 8:
        return round_to_nearest(value, 8, None)
    group = recipe.group_size or value.shape[1]
    if value.shape[1] % group:
        raise UnsupportedRecipe(
            f"{name} has {value.shape[1]} inputs, which group size {group} does not divide.", "Try --recipe int8."
        )
    if not recipe.asymmetric:
        return round_to_nearest(value, 4, group)
    if moments is None:
        return blocks.round_to_grid(value, blocks.fit(value, group))
    return gptq(value, moments, group)


def quantize(
    reference: Reference, recipe: Recipe, out: Path, progress: Progress = no_progress, calibration: Path | None = None
) -> Quantized:
    """Quantize every parameter of `reference` into the existing directory `out`; `calibration`: the user's own text.

    Raises IntegrityError (NaN or inf), UnsupportedRecipe (group size), UnsupportedModel (architecture), UsageError
    (calibration text).
    """
    from .reference.eager import empty_model_in
    from .reference.model import reference_model
    from .reference.residence import CALIBRATING
    from .reference.rowreader import RowReader
    from .reference.weights import open_reference

    family = families.get(reference.model_type)
    skeleton = empty_model_in(reference.directory)
    roles = parameter_roles(skeleton, family)
    with open_reference(reference) as stored:
        tensors: Mapping[str, FloatArray] = stored
        done: dict[str, WeightTensor] = {}
        if recipe.calibrated and family.kind != "seq2seq":  # nothing of those is smoothed (`seq2seq.limits`)
            progress(0.0, "the original model reads the calibration text")
            model = reference_model(reference, budget=CALIBRATING)
            sequences = calibration_text(reference, recipe, calibration)
            scheme = Scheme(roles, recipe, family)
            tensors = smoothed(model, stored, scheme, sequences)
            if recipe.asymmetric:
                done = calibrated(model, tensors, scheme, sequences, progress)
            del model
        write_weights(out / WEIGHTS_FILE, quantize_all(tensors, roles, recipe, progress, done))
        if family.per_layer_table in roles and isinstance(stored, RowReader):
            progress(1.0, "per-layer table")
            extract_table(stored, table_layout(reference.name, skeleton, family.per_layer_table, recipe), out)
    for name in filter(lambda one: (reference.directory / one).is_file(), COPIED):
        shutil.copyfile(reference.directory / name, out / name)
    shutil.copytree(reference.tokenizer_dir, out / "tokenizer")
    return Quantized(name=reference.name, directory=out, recipe=recipe, model_type=reference.model_type)


def calibration_text(reference: Reference, recipe: Recipe, own: Path | None) -> list[list[int]]:
    """What the model is calibrated on, in its own tokens."""
    tokenizer, head = ShippedTokenizer(reference.tokenizer_dir), find_head(reference.directory)
    if head is None:
        return calibration_ids(tokenizer, own, recipe.calibration_sha256)
    return calibration_pieces(tokenizer, head.longest_tokens, own, recipe.calibration_sha256)


def table_layout(model: str, skeleton: PreTrainedModel, parameter: str, recipe: Recipe) -> TableLayout:
    """How the per-layer table of a model is stored: a row for each token, a scale for each layer of it."""
    from .reference.structure import embedding_scale

    module = skeleton.get_submodule(parameter.removesuffix(".weight"))
    rows, values = module.weight.shape
    layers = skeleton.config.num_hidden_layers
    return TableLayout(
        model=model,
        parameter=parameter,
        rows=rows,
        layers=layers,
        width=values // layers,
        bits=cast("Bits", bits_of(parameter, "table", recipe)),
        multiplier=embedding_scale(module),
    )


def extract_table(stored: RowReader, layout: TableLayout, out: Path) -> None:
    """Write the per-layer table of a checkpoint into `out`, a block of rows at a time.

    Raises IntegrityError (NaN, inf, another shape), UnsupportedRecipe (4 bits of an odd width).
    """
    stored.check_shape(layout.parameter, (layout.rows, layout.layers * layout.width))
    read = partial(stored.rows, layout.parameter)
    write_table(out / TABLE_FILE, layout, quantized_rows(read, layout))


def calibrated(
    model: Any,
    tensors: Mapping[str, FloatArray],
    scheme: Scheme,
    sequences: list[list[int]],
    progress: Progress,
) -> dict[str, WeightTensor]:
    """The linear layers and, where it has 4 bits, the head, rounded on calibration inputs. `model` is used up.

    Layers whose rounding loses nothing are left to be rounded as they are read.
    """
    from .reference.rowreader import rows_of

    roles, recipe, family = scheme.roles, scheme.recipe, scheme.family
    done: dict[str, WeightTensor] = {}

    def rows(name: str, begin: int, end: int) -> FloatArray:  # of a finished layer, what it is worth after rounding
        return dequantized(done[name])[begin:end] if name in done else rows_of(tensors, name, begin, end)

    for name in outside_the_table(roles):
        model.residence.put(name, partial(rows, name))

    def round_one(name: str, value: FloatArray, moments: FloatArray) -> FloatArray:
        tensor = done[name] = quantize_tensor(name, value, roles[name], recipe, moments)
        return dequantized(tensor)

    layers = model.config.num_hidden_layers
    if recipe.rounding == "tuned" or not rounds_without_loss(tensors, scheme):
        quantize_layers(
            model, family.layers, sequences, round_one, lambda count: progress(0.9 * count / layers, f"layer {count}"),
            partial(tune_layer, tensors, done) if recipe.rounding == "tuned" else None,
        )  # fmt: skip
    head = family.head if family.head in roles else family.embedding
    if family.head and bits_of(head, "embedding", recipe) == 4:
        progress(0.9, "head")
        moments = input_moments(model, family.head.removesuffix(".weight"), sequences)
        done[head] = quantize_tensor(head, tensors[head], "embedding", recipe, moments)
    return done


def tune_layer(
    tensors: Mapping[str, FloatArray], done: dict[str, WeightTensor], path: str, layer: Any, examples: Examples
) -> None:
    """Move the codes of a layer's 4-bit matrices together, in `done` and in the layer itself."""
    import torch

    from .tune import tune

    starts = {
        name.removeprefix(f"{path}.").removesuffix(".weight"): tensor
        for name, tensor in done.items()
        if name.startswith(f"{path}.") and isinstance(tensor, QuantizedTensor) and tensor.shifts is not None
    }
    floats = {name: tensors[f"{path}.{name}.weight"] for name in starts}
    for name, tensor in tune(layer, examples, floats, starts).items():
        done[f"{path}.{name}.weight"] = tensor
        layer.get_submodule(name).weight.copy_(torch.from_numpy(tensor.dequantize()))


def quantize_all(
    tensors: Mapping[str, FloatArray],
    roles: Mapping[str, Role],
    recipe: Recipe,
    progress: Progress,
    done: dict[str, WeightTensor] | None = None,
) -> Iterator[tuple[str, WeightTensor]]:
    """Quantize the parameters named in `roles` that are not `done`, one at a time: a name and its tensor each.

    What was `done` is handed over, and gone from it. Raises IntegrityError for parameters that the checkpoint lacks.
    """
    missing = missing_names(roles, tensors)
    if missing:
        raise IntegrityError(
            f"the checkpoint lacks {len(missing)} tensors, the first is {missing[0]}.", "Fetch it again."
        )
    calibrated = bool(done)
    ready = done or {}
    for count, (name, role) in enumerate(outside_the_table(roles).items(), start=1):
        yield name, ready.pop(name) if name in ready else quantize_tensor(name, tensors[name], role, recipe)
        if not calibrated:
            progress(count / len(roles), name)


def outside_the_table(roles: Mapping[str, Role]) -> dict[str, Role]:
    """Roles of the parameters that are tensors of the weights file; a table has a file of its own."""
    return {name: role for name, role in roles.items() if role != "table"}


def missing_names(roles: Iterable[str], tensors: Mapping[str, FloatArray]) -> list[str]:
    """Parameters that the model has and the checkpoint lacks."""
    return [name for name in roles if name not in tensors]
