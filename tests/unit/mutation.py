"""How valid things are damaged: bytes by position and value, JSON by node. Plans are data: hypothesis shrinks them."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

NUMBERS = (
    0, 1, 2, 7, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**62, 2**63, 2**64 - 1,
)  # fmt: skip

NASTY_TEXT = (
    "", " ", ".", "..", "../../etc/passwd", "/etc/passwd", "a/../../b", "a//b", "\\\\server\\share", "C:\\x", "con",
    "NUL.txt", "a\x00b", "a\nb", "\x1b]0;title\x07", "\x1b[2J",
    "\u202egnp.exe", "\ud800", "é", "e\u0301", "a" * 600,
    "{}", "{{7*7}}", "executorch/../litert/model.bin", "model.sig", "kobako.json", "KOBAKO.JSON",
    "executorch/model.bin ", "x.", "-rf", "\ufeff",
)  # fmt: skip
"""Names that some file system, terminal or program has been fooled by."""

NASTY_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, -0.0, 1e308, float("nan"), float("inf"), [], {}, [[]], [None],
    {"": None}, *NASTY_TEXT,
)  # fmt: skip

BytePlan = Sequence[tuple[str, int, int]]
byte_plans: st.SearchStrategy[BytePlan] = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "u32", "u64", "insert", "delete", "cut", "repeat"]),
        st.integers(0, 2**16 - 1),
        st.integers(0, 2**16 - 1),
    ),
    min_size=1,
    max_size=6,
)
JsonPlan = Sequence[tuple[str, Sequence[int], Any]]
json_plans: st.SearchStrategy[JsonPlan] = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "delete", "add", "double"]),
        st.lists(st.integers(0, 63), min_size=1, max_size=6),
        st.one_of(st.sampled_from(NASTY_VALUES), st.text(max_size=12), st.integers(-(2**70), 2**70)),
    ),
    min_size=1,
    max_size=4,
)


def damaged_bytes(data: bytes, plan: BytePlan, head: int = 2**16) -> bytes:
    """`data` after every step of a plan; positions fall into the first `head` bytes, where headers are."""
    out = bytearray(data)
    for step, place, value in plan:
        if not out:
            break
        at = place % min(len(out), head)
        if step == "flip":
            out[at] ^= 1 << value % 8
        elif step == "set":
            out[at] = value % 256
        elif step in ("u32", "u64"):
            form, size = ("<I", 4) if step == "u32" else ("<Q", 8)
            out[at : at + size] = struct.pack(form, NUMBERS[value % len(NUMBERS)] % 2 ** (8 * size))
        elif step == "insert":
            out[at:at] = bytes([value % 256]) * (1 + value % 9)
        elif step == "delete":
            del out[at : at + 1 + value % 16]
        elif step == "cut":
            del out[at:]
        else:
            out[at:at] = out[at : at + 1 + value % 256]
    return bytes(out)


def damaged_json(value: Any, plan: JsonPlan) -> Any:
    """A copy of `value` after every step of a plan."""
    out = copy.deepcopy(value)
    for step, path, given in plan:
        holder, key = _find(out, path)
        new = copy.deepcopy(given)  # a plan's value may be put in twice, even into itself
        if holder is None:
            return new
        if step == "delete":
            del holder[key]
        elif step == "add" and isinstance(holder, dict):
            holder[str(new)] = copy.deepcopy(holder[key])
        elif step in ("add", "double") and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = new
    return out


def _find(value: Any, path: Sequence[int]) -> tuple[Any, Any]:
    """Walk down `path` as far as it goes: the container and the key where it ends; (None, None) for a bare value."""
    holder, key = None, None
    for index in path:
        if not isinstance(value, dict | list) or not value:
            break
        holder = value
        key = list(value)[index % len(value)] if isinstance(value, dict) else index % len(value)
        value = holder[key]
    return holder, key


def to_bytes(value: Any) -> bytes:
    """JSON as Python writes it: NaN, lone surrogates and all."""
    return json.dumps(value).encode("utf-8", "surrogatepass")
