"""Architectures that transformers has no code for, written from their papers: one module per ``model_type``.

Each holds ``MODEL``, a class that transformers could have had: targets build, trace and replace its parts as those of
any other. Whatever transformers already has (norms, rotary tables, masks, caches) is taken from there. The code inside
a checkpoint's own repository is never run.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def own_class(model_type: str) -> Any:
    """The PreTrainedModel class of an architecture that is written here; None for all others."""
    known = {module.name for module in pkgutil.iter_modules(__path__)}
    return importlib.import_module(f"{__name__}.{model_type}").MODEL if model_type in known else None
