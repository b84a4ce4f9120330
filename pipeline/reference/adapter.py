"""LoRA adapters, merged into the weights as they are read: W + s · B A (arXiv:2106.09685), in PEFT's file layout.

Only what can be merged exactly is: a model with an adapter is then a model like any other, and no runtime knows of it.

Shape legend: O outputs, I inputs of a linear layer, r rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contracts import FloatArray, Source
from ..errors import IntegrityError, UnsupportedModel
from ..tensorfile import TensorFile

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
NEXT_STEP = "Merge it with PEFT (merge_and_unload, save_pretrained) and name the result."
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
LONGEST = 256
"""Characters of a pattern, and of the path that it is held against."""
REFUSED = {
    "use_dora": "DoRA's magnitudes", "layer_replication": "replicated layers", "modules_to_save": "whole modules",
    "trainable_token_indices": "trained tokens", "use_qalora": "QALoRA's pooled groups",
}  # fmt: skip
"""Fields of adapter_config.json that change more than linear layers' weights."""


@dataclass(frozen=True)
class Adapter:
    """An adapter's file, and s of each parameter that it changes, by Hugging Face name."""

    name: str
    file: TensorFile
    scales: Mapping[str, float]

    def delta(self, parameter: str) -> FloatArray:
        """What is added to a parameter: float32 ``[O, I]``."""
        path = PREFIX + parameter.removesuffix(".weight")
        down, up = (self.file.floats(path + end) for end in (DOWN, UP))
        with np.errstate(over="ignore", invalid="ignore"):  # whoever adds it looks for that
            return np.asarray(np.float32(self.scales[parameter]) * (up @ down), dtype=np.float32)


class Adapted(Mapping[str, FloatArray]):
    """Tensors of a checkpoint with an adapter merged in, one at a time."""

    def __init__(self, tensors: Mapping[str, FloatArray], adapter: Adapter) -> None:
        self._tensors, self._adapter = tensors, adapter

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, name: str) -> FloatArray:
        value = self._tensors[name]
        if name not in self._adapter.scales:
            return value
        delta = self._adapter.delta(name)
        if delta.shape != value.shape:
            raise IntegrityError(
                f"{self._adapter.name} changes {name} in shape {delta.shape}, the model has {value.shape}.",
                "The adapter belongs to another model.",
            )
        merged = value + delta
        if np.isfinite(value).all() and not np.isfinite(merged).all():
            raise IntegrityError(
                f"{self._adapter.name} makes {name} infinite or NaN.", "Its matrices or its alpha are damaged."
            )
        return merged


def read_adapter(source: Source) -> Adapter:
    """The adapter in a Source. Raises UnsupportedModel for what cannot be merged, IntegrityError for damage."""
    from .weights import open_safetensors

    try:
        config = json.loads((source.directory / CONFIG).read_text(encoding="utf-8"))
        kind = str(config.get("peft_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{CONFIG} of {source.name} cannot be read: {error}.", "Fetch it again.") from error
    if kind.upper() != "LORA":
        raise UnsupportedModel(f"{source.name} is an adapter of kind {kind}; kobako merges LoRA.", NEXT_STEP)
    for field, words in REFUSED.items():
        if config.get(field):
            raise UnsupportedModel(f"{source.name} holds {words} ({field}), which kobako does not merge.", NEXT_STEP)
    file = open_safetensors(source.directory / WEIGHTS)
    names = file.names()
    odd = [name for name in names if not (name.startswith(PREFIX) and name.endswith((DOWN, UP)))]
    if odd or not names:
        found = odd[0] if odd else "nothing"
        raise UnsupportedModel(f"{source.name} holds {found}, which kobako does not merge.", NEXT_STEP)
    paths = sorted({name.removesuffix(DOWN).removesuffix(UP) for name in names})
    if half := [path for path in paths if not {path + DOWN, path + UP} <= set(names)]:
        raise IntegrityError(f"{source.name} holds only one half of {half[0]}.", "Fetch it again.")
    try:
        scales = {
            f"{path.removeprefix(PREFIX)}.weight": _scale(config, path.removeprefix(PREFIX), _rank(file, path))
            for path in paths
        }
    except (ValueError, TypeError, AttributeError, OverflowError, re.error) as error:
        raise IntegrityError(f"{source.name} cannot be merged: {error}.", NEXT_STEP) from error
    return Adapter(source.name, file, scales)


def _rank(file: TensorFile, path: str) -> int:
    """r of one layer. Raises ValueError when its halves are not float matrices that can be multiplied."""
    shapes = [file.shape(path + end) for end in (DOWN, UP)]
    kinds = {file.kind(path + end) for end in (DOWN, UP)}
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][0] != shapes[1][1] or not shapes[0][0]:
        raise ValueError(f"{path} has halves of the shapes {shapes[0]} and {shapes[1]}")
    if not kinds <= {"F32", "F16", "BF16"}:
        raise ValueError(f"{path} is stored as {', '.join(sorted(kinds))}")
    return int(shapes[0][0])


def _scale(config: Mapping[str, Any], path: str, rank: int) -> float:
    """s of one layer: α / r, or α / √r; patterns of `alpha_pattern` match whole ends of a module's path.

    Raises ValueError, TypeError, AttributeError or re.error for settings that are none.
    """
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    named = next((key for key in patterns.keys() if _matches(key, path)), None)  # noqa: SIM118  # a list has no keys
    alpha = float(config.get("lora_alpha", 8) if named is None else patterns[named])
    if not abs(alpha) <= LARGEST_FLOAT32:
        raise ValueError(f"the alpha of {path} is {alpha}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _matches(pattern: str, path: str) -> bool:
    """Whether a stranger's regular expression matches the end of a path, as PEFT does it.

    Raises ValueError for one that could take for ever: repeated groups, many repetitions, or great length.
    """
    wild = len(re.findall(r"[*+{]", pattern)) > 2 or re.search(r"\)\s*[*+{]", pattern)
    if wild or len(pattern) > LONGEST or len(path) > LONGEST:
        raise ValueError(f"the pattern {pattern[:60]!r} of alpha_pattern could take for ever on {path[:60]!r}")
    return re.match(rf"(.*\.)?({pattern})$", path) is not None


def check_names(adapter: Adapter, names: Container[str]) -> None:
    """Raise UnsupportedModel when the adapter changes parameters that the model does not have."""
    if strange := sorted(name for name in adapter.scales if name not in names):
        raise UnsupportedModel(
            f"{adapter.name} changes {strange[0]}, which this model does not have (or has tied to its embedding).",
            "The adapter belongs to another model.",
        )
