"""One folder per target, discovered by listing: ``kobako.targets.NAME.TARGET`` fulfils `protocols.Target`.

Adding a target is adding a folder, and a line to the few tables that CONTRIBUTING.md names. Importing a folder
imports no vendor package.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

from kobako.pipeline.errors import MissingDependency, NotFound
from kobako.pipeline.protocols import Target


def names() -> list[str]:
    """Names of all targets, alphabetically."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def get(name: str) -> Target:
    """The target called `name`. Raises NotFound."""
    if name not in names():
        raise NotFound(f"there is no target {name!r}.", f"Targets: {', '.join(names())}.")
    target: Target = importlib.import_module(f"{__name__}.{name}").TARGET
    return target


def missing_modules(target: Target) -> list[str]:
    """Vendor modules of a target that are not installed."""
    return [module for module in target.vendor_modules if importlib.util.find_spec(module) is None]


def require(target: Target) -> None:
    """Raise MissingDependency when a vendor package of the target is not installed."""
    if missing := missing_modules(target):
        raise MissingDependency(
            f"target {target.name} needs the Python modules {', '.join(missing)}, which are not installed.",
            f"pip install 'kobako[{target.name}]'",
        )
