"""Figures as words: one place for how sizes, times, shares and rates are written.

Figures that are not finite are said to be so; a proof that went wrong must not look like a zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

NOTHING = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")


def human_bytes(n: float) -> str:
    """``134.7 MB``: decimal units, as download sizes are given."""
    if not math.isfinite(n):
        return _not_finite(n)
    for limit, unit in ((999.5e6, "GB"), (999.5e3, "MB"), (999.5, "kB")):
        if abs(n) >= limit:
            divisor = {"GB": 1e9, "MB": 1e6, "kB": 1e3}[unit]
            return f"{n / divisor:.2f} {unit}" if unit == "GB" else f"{n / divisor:.1f} {unit}"
    return f"{n:.0f} B"


def human_seconds(s: float) -> str:
    """``0.8 s``, ``12 s``, ``2 min 05 s``, ``1 h 02 min``; under 0.1 s in milliseconds."""
    if not math.isfinite(s):
        return _not_finite(s)
    if s < 0.0995:
        return f"{s * 1e3:.0f} ms"
    if s < 9.95:
        return f"{s:.1f} s"
    whole = round(s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(s / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float) -> str:
    """``99.8%``; never rounds up to 100% what is less, nor down to 0% what is more."""
    if not math.isfinite(share):
        return _not_finite(share)
    text = f"{share:.1%}"
    if text == "100.0%":
        return "100%" if share >= 1 else ">99.9%"
    if text == "0.0%":
        return "0%" if share <= 0 else "<0.1%"
    return text


def rate(per_second: float) -> str:
    """``142 tok/s``; one decimal under 10."""
    if not math.isfinite(per_second):
        return _not_finite(per_second)
    return f"{per_second:.1f} tok/s" if per_second < 9.95 else f"{per_second:,.0f} tok/s"


def small(value: float) -> str:
    """A small figure such as a divergence: ``0.042``, ``2.3×10⁻⁵``, ``0``."""
    if not math.isfinite(value):
        return _not_finite(value)
    if value == 0:
        return "0"
    if abs(value) >= 0.00095:
        return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def power_of_ten(exponent: int) -> str:
    """A tick of a logarithmic axis: ``10⁻⁵``, or plain between 0.01 and 100."""
    if -2 <= exponent <= 2:
        return f"{10.0**exponent:g}"
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def count(n: int, singular: str, plural: str = "") -> str:
    """``1 check``, ``3 checks``."""
    return f"{n} {singular if n == 1 else plural or singular + 's'}"


def listed(names: list[str]) -> str:
    """``A``, ``A and B``, ``A, B and C``."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1] if names else "") if part)


def cleaned(value: Any) -> Any:
    """A JSON value whose strings hold no control characters or lone surrogates: neither HTML nor XML can carry them."""
    if isinstance(value, str):
        return _UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {cleaned(key): cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return value


def _not_finite(value: float) -> str:
    return "not a number" if math.isnan(value) else "infinite"
