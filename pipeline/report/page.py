"""The report as one HTML page: the template's values are gathered here, `page.html` lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..leftout import text_only
from . import encoder, plots, words
from .facts import (
    PARTS,
    TargetFacts,
    adapter_words,
    cache_words,
    headline,
    licence_words,
    origin_words,
    recipe_words,
    targets_of,
)
from .pareto import pareto_plot
from .rows import table
from .textplot import texts_decades, texts_plot

TEMPLATE = "page.html"


def page(data: Mapping[str, Any]) -> str:
    """One self-contained page; every string of the data is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    clean: Mapping[str, Any] = words.cleaned(data)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(_values(clean))


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    targets = targets_of(data)
    reads = encoder.is_encoder(data)
    ends = texts_decades(targets) if reads else plots.tokens_decades(targets)
    return {
        "reads": reads,
        "name": data["name"],
        "recipe": data["recipe"]["name"],
        "headline": headline(data),
        "proven": bool(targets) and all(target.passed for target in targets),
        "subtitle": (
            f"{data['name']} with {recipe_words(data)}, "
            f"for a context of {data['context_tokens']} tokens{cache_words(data)}; "
            f"tasks: {words.listed(list(data['tasks'])) or 'none'}."
            + (f" {encoder.head_words(data)}" if encoder.is_encoder(data) else "")
            + (f" {text_only(data['left_out'])}" if data["left_out"] else "")
        ),
        "targets": [_target(target, number, ends, reads=reads) for number, target in enumerate(targets)],
        "titles": [target.title for target in targets],
        "rows": table(data),
        "speed": plots.speed_plots(targets),
        "layers": plots.layers_plot(targets),
        "size": plots.size_plot(data),
        "pareto": pareto_plot(data),
        "stages": plots.stages_plot(data["stages"]),
        "source": _source(data),
        "unverified": unverified(targets),
    }


def _target(target: TargetFacts, number: int, ends: tuple[int, int], *, reads: bool) -> dict[str, Any]:
    plot = texts_plot if reads else plots.tokens_plot
    versions = target.entry["vendor_versions"]
    return {
        "name": target.name,
        "title": target.title,
        "style": plots.style_of(number),
        "passed": target.passed,
        "verdict": target.verdict,
        "caveats": target.caveats,
        "activations": target.report["activations"],
        "parts": [_part(target, part) for part in PARTS],
        "greedy": [_answer(answer) for answer in target.figure("greedy") or []],
        "tokens": plot(target, number, ends),
        "engine": target.measurement["engine"] if target.measurement else None,
        "threads": target.measurement["threads"] if target.measurement else None,
        "load": words.human_seconds(target.measurement["load_s"]) if target.measurement else None,
        "first_token": words.human_seconds(target.measurement["first_token_s"]) if target.measurement else None,
        "versions": [f"{name} {version}" for name, version in versions.items()],
        "files": [(name, words.human_bytes(size)) for name, size in target.entry["files"].items()],
    }


def _part(target: TargetFacts, part: str) -> dict[str, Any]:
    return {
        "name": part,
        "question": PARTS[part],
        "checks": [check for check in target.checks if check["part"] == part],
    }


def _answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """One prompt's two texts, cut where they part."""
    expected, actual = str(answer["expected"]), str(answer["actual"])
    common = len(expected) if answer["same"] else _common(expected, actual)
    return {
        "prompt": answer["prompt"],
        "same": answer["same"],
        "tie": answer["tie"],
        "note": answer["note"],
        "expected": (expected[:common], expected[common:]),
        "actual": (actual, "") if answer["same"] else (actual[:common], actual[common:]),
    }


def _common(one: str, other: str) -> int:
    """How many characters two texts share from their start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _source(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    source = data["source"]
    files = source["files"]
    total = words.human_bytes(sum(file["size_bytes"] for file in files))
    return [
        ("Model", source["name"]),
        ("Origin", origin_words(data)),
        ("Revision", source["revision"]),
        ("Licence", licence_words(data)),
        *([("Adapter", adapter_words(data))] if source.get("adapter") else []),
        ("Architecture", data["model_type"]),
        ("Original files", f"{words.count(len(files), 'file')}, {total}, {source['format']}"),
    ]


def unverified(targets: list[TargetFacts]) -> list[str]:
    """What the proof does not say, for the page and the model card."""
    notes = [
        "Real phones. Everything was run on the machine that built the package, on its CPU: speed, memory and heat on "
        "a device, and its GPU or neural accelerator, were not tried.",
    ]
    if any(target.name == "coreml" and target.interpreted for target in targets):
        notes.append(
            "Core ML in Apple's own runtime. It exists only on Apple's systems; the saved program was run operation by "
            "operation in kobako's own interpreter instead, so Apple's compiler and devices may still differ."
        )
    elif any(target.interpreted for target in targets):
        notes.append("The vendor's own runtime, where the table says that an interpreter was used.")
    notes.append(
        "What the model says. The proof shows that a file says what the original model says, not that this is true, "
        "safe or useful."
    )
    return notes
