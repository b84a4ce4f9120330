"""Frozen values to JSON and back, for the cache and for process boundaries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

from cattrs.preconf.json import make_converter

from .names import printable

T = TypeVar("T")


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is Mapping


_converter = make_converter()
_converter.register_unstructure_hook(Path, str)
_converter.register_structure_hook(Path, lambda value, _: Path(value))
_converter.register_structure_hook_func(_is_mapping, lambda value, _: dict(value))


def to_json(value: object) -> Any:
    """A JSON value of a frozen dataclass (or anything made of them)."""
    return _converter.unstructure(value)


def from_json(data: object, kind: type[T]) -> T:
    """The dataclass `kind` rebuilt from `to_json`'s result."""
    return _converter.structure(data, kind)


def write_json(path: Path, value: object) -> None:
    """Write a value as `json_text`, in UTF-8, with a final newline."""
    path.write_text(json_text(value) + "\n", encoding="utf-8")


def json_text(value: object) -> str:
    """Indented JSON that any file and any terminal takes: characters as they are, unless some are not text (lone
    surrogates) or invisible (control characters, marks that turn the direction of writing); then all escaped. NaN and
    infinities, which JSON lacks, become null.
    """
    finite = _finite(value)
    text = json.dumps(finite, indent=2, ensure_ascii=False)
    return text if printable(text) == text else json.dumps(finite, indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError when it is not JSON, OSError when it cannot be read."""
    return json.loads(path.read_text(encoding="utf-8"))
