"""What a subject of fuzzing is.

Its `check` takes one case and returns whether it was accepted. Refusing is a KobakoError; anything else that is raised
is a bug, as is accepting something that breaks a promise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from kobako.pipeline.errors import KobakoError


@dataclass(frozen=True)
class Subject:
    """One kind of input: how cases are made, and what is done with one.

    `seeds`: valid examples where a case is bytes, for ``scripts/fuzz --coverage``; none where it is not.
    """

    name: str
    cases: st.SearchStrategy[Any]
    check: Callable[[Any], bool]
    seeds: tuple[bytes, ...] = ()


def refused(act: Callable[[], Any]) -> bool:
    """Run `act`; whether it refused in the way it should."""
    try:
        act()
    except KobakoError:
        return True
    return False
