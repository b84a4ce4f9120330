"""The protobuf classes of Core ML's format, without importing coremltools (three seconds, and it prints)."""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from kobako.pipeline.errors import MissingDependency

ALIAS = "_kobako_coreml_proto"


@functools.cache
def schema(name: str) -> Any:
    """One generated module of ``coremltools.proto``: ``Model_pb2`` or ``MIL_pb2``. Raises MissingDependency.

    The generated files import each other relatively, so they can live in a package of another name. When coremltools
    is imported already, its own classes are used.
    """
    if "coremltools.proto" in sys.modules:
        return importlib.import_module(f"coremltools.proto.{name}")
    spec = importlib.util.find_spec("coremltools")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("coremltools is not installed.", "pip install 'kobako[coreml]'")
    if ALIAS not in sys.modules:
        package = ModuleType(ALIAS)
        package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "proto")]
        sys.modules[ALIAS] = package
    return importlib.import_module(f"{ALIAS}.{name}")
