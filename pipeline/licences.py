"""Licences of models: what is known about them, whether they pass a policy, and the texts that must travel.

The list is small and about model licences; identifiers are SPDX's where SPDX has one, else the Hub's spelling. It is a
gate against surprises in CI, not legal advice.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from .contracts import Source
from .errors import LicenceRefused
from .version import __version__

Policy = Literal["refuse", "warn", "allow"]
POLICIES: tuple[Policy, ...] = ("refuse", "warn", "allow")

PERMISSIVE = (
    "Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC", "Zlib", "Unlicense", "0BSD",
    "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "CDLA-Permissive-2.0",
)  # fmt: skip
"""Any use and redistribution, with at most attribution."""

SHARE_ALIKE = (
    "CC-BY-SA-4.0", "CC-BY-SA-3.0", "GPL-2.0-only", "GPL-3.0-only", "GPL-3.0-or-later", "AGPL-3.0-only",
    "LGPL-2.1-only", "LGPL-3.0-only", "MPL-2.0",
)  # fmt: skip
NON_COMMERCIAL = ("CC-BY-NC-4.0", "CC-BY-NC-3.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0", "CC-BY-ND-4.0")
OWN_TERMS = (
    "gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "openrail", "openrail++", "apple-amlr",
    "bigscience-openrail-m", "bigscience-bloom-rail-1.0", "bigcode-openrail-m", "creativeml-openrail-m",
)  # fmt: skip
SPDX = frozenset((*PERMISSIVE, *SHARE_ALIKE, *NON_COMMERCIAL))
"""Those that SPDX and the CycloneDX schema know by this identifier."""

META = "Copyright © Meta Platforms, Inc. All Rights Reserved."
REQUIRED_NOTICES: Mapping[str, str] = {
    "gemma": "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    "llama2": f"Llama 2 is licensed under the LLAMA 2 Community License, {META}",
    "llama3": f"Meta Llama 3 is licensed under the Meta Llama 3 Community License, {META}",
    "llama3.1": f"Llama 3.1 is licensed under the Llama 3.1 Community License, {META}",
    "llama3.2": f"Llama 3.2 is licensed under the Llama 3.2 Community License, {META}",
    "llama3.3": f"Llama 3.3 is licensed under the Llama 3.3 Community License, {META}",
}
"""Sentences that these terms demand in a notice file."""

LEGAL_PATTERNS = ("licen[sc]e*", "copying*", "use_policy*", "use-policy*", "acceptable_use*", "terms*")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is known of a model's licence. `objections`: why a strict policy stops; empty when it does not."""

    licence: str
    spdx: bool
    objections: tuple[str, ...]


def judge(source: Source) -> Judgement:
    """Look a model's licence up, and whether its text is there."""
    known = {name.casefold(): name for name in (*PERMISSIVE, *SHARE_ALIKE, *NON_COMMERCIAL, *OWN_TERMS)}
    licence = known.get(source.licence.casefold(), source.licence)
    objections = []
    if licence in SHARE_ALIKE:
        objections.append(f"{licence} asks that what is made from the model is shared alike")
    elif licence in NON_COMMERCIAL:
        objections.append(f"{licence} forbids commercial use, or changes")
    elif licence in OWN_TERMS:
        objections.append(f"{licence} has terms of its own: restrictions of use, and duties towards users")
    elif licence not in PERMISSIVE:
        objections.append(f"the licence {licence!r} is not one kobako knows")
    if not legal_files(source):
        objections.append("the model came without a licence text")
    return Judgement(licence=licence, spdx=licence in SPDX, objections=tuple(objections))


def check_licence(source: Source, policy: Policy) -> tuple[str, ...]:
    """What to warn about before a build. Raises LicenceRefused when the policy is ``refuse`` and there is anything."""
    objections = judge(source).objections
    if source.adapter is not None:
        objections += tuple(f"adapter {source.adapter.name}: {words}" for words in judge(source.adapter).objections)
    if objections and policy == "refuse":
        raise LicenceRefused(
            f"{source.name}: {'; '.join(objections)}.",
            "Read the terms; if you may use the model, build it with --licence-policy warn.",
        )
    return () if policy == "allow" else objections


def legal_files(source: Source) -> tuple[str, ...]:
    """The files of a model that hold its licence or its terms (notices apart), by path."""
    return tuple(
        file.path
        for file in source.files
        if any(fnmatch(file.path.casefold(), pattern) for pattern in LEGAL_PATTERNS) and "/" not in file.path
    )


def write_legal(source: Source, recipe: str, out: Path) -> None:
    """Write ``LICENSE``, ``NOTICE`` and whatever other terms the model has into a package: both are always there.

    An adapter's own terms lie beside them as ``ADAPTER-LICENSE`` and so on; what it wants said is in ``NOTICE``, too.
    """
    _write_terms(source, "model", out, "")
    if source.adapter is not None:
        _write_terms(source.adapter, "adapter", out, "ADAPTER-")
    (out / "NOTICE").write_text(_notice(source, recipe), encoding="utf-8")


def _write_terms(source: Source, what: str, out: Path, prefix: str) -> None:
    """Its files as they are, and one called LICENSE whatever they are called: that is where everybody looks."""
    names = legal_files(source)
    for name in names:
        plain = "LICENSE" if name.casefold() == "license" else name
        shutil.copyfile(source.directory / name, out / f"{prefix}{plain}")
    texts = [name for name in names if name.casefold().startswith(("licen", "copying"))]
    if any(name.casefold() == "license" for name in texts):
        return
    home = out / f"{prefix}LICENSE"
    if len(texts) == 1:
        shutil.copyfile(source.directory / texts[0], home)
        return
    stated = f"It states the licence: {judge(source).licence}\nFrom: {source.origin}\n"
    if texts:
        said = f"The texts of the {what}'s licence are in {', '.join(prefix + name for name in texts)}.\n{stated}"
    else:
        said = f"The {what} came without a licence text. {stated}{_where(judge(source))}"
    home.write_text(said, encoding="utf-8")


def _where(judgement: Judgement) -> str:
    return f"\nIts text: https://spdx.org/licenses/{judgement.licence}.html\n" if judgement.spdx else "\n"


def _notice(source: Source, recipe: str) -> str:
    """What was changed, as Apache-2.0 4(b) and others demand, what the terms want said, and the model's own notices."""
    licence, adapter = judge(source).licence, source.adapter
    holds = "The licence of the model holds" if adapter is None else "The licences of the model and of the adapter hold"
    parts = [
        f"This package holds the model {source.name}\nfrom {source.origin}\nrevision {source.revision}\n"
        f"under the licence {licence}.\n\n"
        f"The weights were changed: kobako {__version__} quantized them (recipe {recipe}) and converted them to other\n"
        f"file formats. {holds} for this package.\n"
    ]
    if adapter is not None:
        parts.append(
            f"Before that, the adapter {adapter.name}\nfrom {adapter.origin}\nrevision "
            f"{adapter.revision}\nunder the licence {judge(adapter).licence} was merged into them.\n"
        )
    if source.slice:
        parts.append(f"Only a part of the model is in this package, the nested model {source.slice}\n")
    both = [source, *([adapter] if adapter is not None else [])]
    required = dict.fromkeys(REQUIRED_NOTICES.get(judge(one).licence, "") for one in both)
    parts += [f"{sentence}\n" for sentence in required if sentence]
    for one, whose in zip(both, ("model", "adapter"), strict=False):
        parts += _own_notices(one, whose)
    return "\n".join(parts)


def _own_notices(source: Source, whose: str) -> list[str]:
    return [
        f"The {whose}'s own {file.path}:\n\n"
        + (source.directory / file.path).read_text(encoding="utf-8", errors="replace")
        for file in source.files
        if fnmatch(file.path.casefold(), "notice*") and "/" not in file.path
    ]
