"""What a recipe does to a model: each parameter's role and bits, and outliers moved before anything is rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import blocks, families
from .contracts import FloatArray, Recipe
from .smooth import largest_inputs, smooth

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Role = Literal["linear", "fine", "embedding", "table", "plain"]
"""What a parameter is; ``fine`` linear layers keep 8 bits where others have 4; a ``table`` is kept outside the graph,
row by row (`kobako.pipeline.embeddings`)."""


@dataclass(frozen=True)
class Scheme:
    """What is done to a model: the role of each parameter, the recipe, and the family's names."""

    roles: Mapping[str, Role]
    recipe: Recipe
    family: families.Family


SAMPLED_MATRICES = 12
EVERY_NTH, MANY_SEQUENCES = 2, 12
"""Of a long calibration text half tells how large activations get: what the rest changes in the loss could not be told
from the noise of rounded activations (SmolLM2 in int4 and int8, Gemma 3 270M in int8)."""


def parameter_roles(model: PreTrainedModel, family: families.Family) -> dict[str, Role]:
    """What each parameter is to the quantizer, by its Hugging Face name; a tied head is not listed."""
    from torch import nn

    tied = bool(model.config.tie_word_embeddings)
    roles: dict[str, Role] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:  # under the name of another module: it is stored once
                continue
            seen.add(id(parameter))
            name = f"{path}.{leaf}" if path else leaf
            matrix = leaf == "weight" and isinstance(module, nn.Linear)  # learned positions stay as they are
            roles[name] = ("fine" if path.endswith(family.fine) else "linear") if matrix else "plain"
    roles.update(dict.fromkeys(family.tables, "embedding"))
    if family.head in roles:
        roles[family.head] = "embedding"
    if tied:
        roles.pop(family.head, None)
    if family.per_layer_table in roles:
        roles[family.per_layer_table] = "table"
    return roles


def bits_of(name: str, role: Role, recipe: Recipe) -> int:
    """Bits of one parameter; 32 for what is not quantized."""
    bits = {
        "linear": recipe.weight_bits,
        "fine": max(8, recipe.weight_bits),
        "embedding": recipe.embedding_bits,
        "table": recipe.embedding_bits,
        "plain": 32,
    }[role]
    return 8 if bits == 4 and name in recipe.wide else bits


def smoothed(
    model: PreTrainedModel, tensors: Mapping[str, FloatArray], scheme: Scheme, sequences: list[list[int]]
) -> Mapping[str, FloatArray]:
    """The checkpoint with outliers of activations moved into weights, as the recipe wants it; read lazily."""
    recipe = scheme.recipe
    block = recipe.group_size if recipe.asymmetric and _keeps_grid(tensors, scheme) else None
    every = EVERY_NTH if len(sequences) >= MANY_SEQUENCES else 1
    largest = largest_inputs(model, sequences[::every])
    return smooth(tensors, largest, scheme.family, model.config.num_hidden_layers, recipe.smoothing, block)


def rounds_without_loss(tensors: Mapping[str, FloatArray], scheme: Scheme) -> bool:
    """Whether every 4-bit matrix lies on a grid with the recipe's groups already: there is no error to make good.

    Told from a checkpoint that was stored in 4 bits before (GGUF's Q4 types, GPTQ, AWQ), smoothed by blocks.
    """
    group = scheme.recipe.group_size
    narrow = [n for n, role in scheme.roles.items() if role == "linear" and bits_of(n, role, scheme.recipe) == 4]
    return group is not None and all(
        blocks.lies_on_grid(value, group)
        for value in map(tensors.__getitem__, narrow)
        if value.shape[1] % group == 0  # others are refused when they are rounded
    )


def _keeps_grid(tensors: Mapping[str, FloatArray], scheme: Scheme) -> bool:
    """Whether most linear layers of a checkpoint lie on a 4-bit grid with this recipe's groups; some are looked at."""
    names = [name for name, role in scheme.roles.items() if role == "linear"]
    group = scheme.recipe.group_size or 32
    looked_at = [tensors[name] for name in names[:: max(1, len(names) // SAMPLED_MATRICES)]]
    votes = [blocks.lies_on_grid(value, group) for value in looked_at if value.shape[1] % group == 0]
    return sum(votes) * 2 > len(votes)
