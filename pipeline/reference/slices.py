"""Nested models of a MatFormer checkpoint (arXiv:2310.07707): what may be asked for, and what remains of config.json.

Of each feed-forward layer the first channels are a layer of their own, and whole layers may be left out, as Google's
MatFormer Lab does it for Gemma 3n E4B. Layers are numbered as in the whole checkpoint, those left out included.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import families
from ..contracts import RECIPES, Source
from ..errors import UnsupportedModel, UsageError
from .prequantized import packing_of

PRESETS: Mapping[str, str] = {"e2b": "ffn=8192;skip=20-24"}
"""Gemma 3n E2B inside E4B (huggingface.co/datasets/google/gemma3n-slicing-configs)."""
HOW_TO_WRITE = f"Write {' or '.join(PRESETS)}, or widths and layers to leave out: 'ffn=8192,4:16384;skip=20-24'."
WIDTH_STEP = max(recipe.group_size or 1 for recipe in RECIPES.values())
"""Widths are multiples of this, so that every recipe's groups fit."""
RANGE = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")
WIDTH = re.compile(r"(?:([\d-]+):)?(\d{1,7})")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What is taken out of a checkpoint.

    Attributes:
        width: channels of all feed-forward layers that `widths` does not name; None = as stored.
        widths: channels by layer.
        skip: layers that are left out, ascending.
    """

    width: int | None
    widths: Mapping[int, int]
    skip: tuple[int, ...]

    @property
    def text(self) -> str:
        """The same slice in the one way of writing it that keys and manifests hold."""
        by_width = sorted(set(self.widths.values()))
        named = [
            (layers, f"{layers}:{width}")
            for width in by_width
            for layers in _ranges(layer for layer, one in self.widths.items() if one == width)
        ]
        ordered = [words for _, words in sorted(named, key=lambda pair: int(pair[0].partition("-")[0]))]
        ffn = ",".join([*([] if self.width is None else [str(self.width)]), *ordered])
        return ";".join(
            [*([f"ffn={ffn}"] if ffn else []), *([f"skip={','.join(_ranges(self.skip))}"] if self.skip else [])]
        )

    @property
    def name(self) -> str:
        """Fit for the end of a package's name: the preset's, or one made of a digest."""
        preset = next((name for name, text in PRESETS.items() if text == self.text), None)
        return preset or f"slice-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"


def parse_slice(text: str) -> Slice:
    """Understand a --slice. Raises UsageError naming what is not understood."""
    width: int | None = None
    widths: dict[int, int] = {}
    skip: list[int] = []
    seen: set[str] = set()
    for part in PRESETS.get(text.strip().lower(), text).split(";"):
        key, _, value = part.partition("=")
        key = key.strip()
        if key not in ("ffn", "skip") or key in seen:
            raise UsageError(f"{part.strip()!r} is no part of a slice, or is there twice.", HOW_TO_WRITE)
        seen.add(key)
        for item in value.replace(" ", "").split(","):
            if key == "skip":
                skip += _layers(item, skip)
                continue
            found = WIDTH.fullmatch(item)
            if found is None or (found[1] is None and width is not None):
                raise UsageError(f"{item!r} is no width of feed-forward layers, or a second one for all.", HOW_TO_WRITE)
            if found[1] is None:
                width = int(found[2])
            else:
                widths |= dict.fromkeys(_layers(found[1], widths), int(found[2]))
    if both := sorted(set(widths) & set(skip)):
        raise UsageError(f"layer {both[0]} has a width and is left out.", "Drop one of the two.")
    return Slice(width=width, widths=widths, skip=tuple(sorted(skip)))


def sliced_name(model: str, taken: Slice | None) -> str:
    """The slug of a model of which a slice is taken."""
    return model if taken is None else f"{model}-{taken.name}"


def sliced_source(source: Source, text: str) -> Source:
    """The source that a --slice takes out of another; the same one for an empty text. Raises UsageError."""
    if not text:
        return source
    taken = parse_slice(text)
    return replace(source, name=sliced_name(source.name, taken), slice=taken.text)


def _layers(text: str, known: Iterable[int]) -> list[int]:
    """The layers of ``4`` or ``4-9``. Raises UsageError for anything else, and for layers that are `known` already."""
    found = RANGE.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if last < first:
        raise UsageError(f"{text!r} is no layer, nor a range of layers.", HOW_TO_WRITE)
    layers = list(range(first, last + 1))
    if again := sorted(set(layers) & set(known)):
        raise UsageError(f"layer {again[0]} is named twice.", HOW_TO_WRITE)
    return layers


def _ranges(layers: Iterable[int]) -> list[str]:
    """``[4, 5, 6, 9]`` → ``["4-6", "9"]``."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def sliced_config(config: Mapping[str, Any], wanted: Slice) -> dict[str, Any]:
    """A config.json as it is of the nested model.

    Raises UnsupportedModel for architectures without nested models, UsageError for a slice that does not fit this one.
    """
    check_nested(str(config.get("model_type")))
    whole = _completed(config)
    kept = [layer for layer in range(whole.num_hidden_layers) if layer not in wanted.skip]
    _check_layers(whole, wanted, kept)
    stored: list[int] = list(whole.intermediate_size)
    others = stored if wanted.width is None else [wanted.width] * len(stored)
    widths = {layer: wanted.widths.get(layer, others[layer]) for layer in kept}
    for layer, width in widths.items():
        _check_width(layer, width, stored[layer])
    if len(kept) == len(stored) and list(widths.values()) == stored:
        raise UsageError(f"the slice {wanted.text} is the whole model.", "Leave --slice out.")
    first_shared = whole.num_hidden_layers - whole.num_kv_shared_layers
    return {
        **config,
        "num_hidden_layers": len(kept),
        "intermediate_size": list(widths.values()),
        "layer_types": [whole.layer_types[layer] for layer in kept],
        "activation_sparsity_pattern": [whole.activation_sparsity_pattern[layer] for layer in kept],
        "num_kv_shared_layers": sum(layer >= first_shared for layer in kept),
    }


def check_nested(model_type: str) -> None:
    """Raise UnsupportedModel for an architecture without nested models."""
    if not families.get(model_type).nested:
        raise UnsupportedModel(
            f"{model_type} was not trained as models inside each other: a slice of it says nothing sensible. "
            f"Nested are: {', '.join(name for name in families.names() if families.get(name).nested)}.",
            "Leave --slice out.",
        )


def check_plain(source: Source, config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModel for a slice of weights that are quantized already."""
    if source.slice and packing_of(config) is not None:
        raise UnsupportedModel(
            f"{source.name} is quantized already; slices are taken of plain floats.", "Name the original model."
        )


def _completed(config: Mapping[str, Any]) -> Any:
    """The config as transformers has it, lists by layer filled in: their defaults depend on the number of layers."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**config)


def _check_layers(whole: Any, wanted: Slice, kept: list[int]) -> None:
    """Raise UsageError for layers that are not there, and for layers that others cannot do without."""
    layers = whole.num_hidden_layers
    for layer in (*wanted.skip, *wanted.widths):
        if layer >= layers:
            raise UsageError(
                f"the slice {wanted.text} names layer {layer}, the model has layers 0 to {layers - 1}.", HOW_TO_WRITE
            )
    if not kept:
        raise UsageError(f"the slice {wanted.text} leaves no layer.", "Skip fewer layers.")
    first_shared = layers - whole.num_kv_shared_layers
    for layer in (layer for layer in kept if layer >= first_shared):
        kind = whole.layer_types[layer]
        lender = max(other for other in range(first_shared) if whole.layer_types[other] == kind)
        if lender in wanted.skip:
            raise UsageError(
                f"the slice {wanted.text} leaves out layer {lender}, whose keys and values layer {layer} reads.",
                f"Keep layer {lender}, or leave out every layer from {first_shared} on that is of kind {kind}.",
            )


def _check_width(layer: int, width: int, stored: int) -> None:
    if width > stored:
        raise UsageError(f"layer {layer} has {stored} channels, fewer than {width}.", "Choose a smaller width.")
    if width == 0 or width % WIDTH_STEP:
        raise UsageError(f"width {width} of layer {layer} is no multiple of {WIDTH_STEP}.", "Choose another width.")
