"""The report's data read once: what each target's verdict is, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import words

FAITHFUL_TOP1 = 0.85
"""Below this agreement with the original, no headline may speak of the model without its quantization."""
PARTS = {
    "weights": "are the integers in the file the quantizer's integers?",
    "fidelity": "does the file compute what the quantized model computes?",
    "quality": "how far is the quantized model from the original?",
    "behaviour": "will an app see the right prompts, tokens, stops and text?",
}
FAULTS = {
    "weights": "the file does not hold the weights that were quantized, which is a fault of the writer",
    "fidelity": "the file does not compute what the quantized model computes, which is a fault of the conversion",
    "quality": "the recipe costs more accuracy than is allowed, whatever the format",
    "behaviour": "an app would see other prompts, tokens, stops or text than the original gives",
}


@dataclass(frozen=True)
class TargetFacts:
    """One target's entry of the data, with what is derived from it."""

    name: str
    title: str
    entry: Mapping[str, Any]

    @property
    def report(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.entry["report"]
        return found

    @property
    def checks(self) -> list[Mapping[str, Any]]:
        return list(self.report["checks"])

    @property
    def failures(self) -> list[Mapping[str, Any]]:
        return [check for check in self.checks if not check["passed"]]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def measurement(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self.entry["measurement"]
        return found

    @property
    def size_bytes(self) -> int:
        return sum(self.entry["files"].values())

    @property
    def interpreted(self) -> bool:
        """The artifact ran in an interpreter, not in the vendor's runtime (Core ML anywhere but on a Mac)."""
        engine = str((self.measurement or {}).get("engine") or self.entry["details"].get("engine", "")).lower()
        return "interpreter" in engine or (self.name == "coreml" and "macos" not in engine)

    def figure(self, *path: str) -> Any:
        """A value inside the report's figures, or None when the proof did not get that far."""
        value: Any = self.report["figures"]
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def check(self, name: str) -> Mapping[str, Any] | None:
        """The check of this name, or None when the proof did not get that far."""
        return next((check for check in self.checks if check["name"] == name), None)

    def demand(self, name: str) -> float | None:
        """The number in a check's demand, as a gate line for a plot."""
        check = self.check(name)
        found = re.search(r"\d[\d.]*(e-?\d+)?", check["demand"]) if check else None
        return float(found.group()) if found else None

    @property
    def verdict(self) -> str:
        """One or two sentences that need no further knowledge."""
        if self.passed:
            if texts := self.figure("fidelity", "texts"):
                return f"All {words.count(len(self.checks), 'check')} hold, over {texts['texts']} texts."
            share, positions = self.figure("fidelity", "decode", "top1"), self.figure("fidelity", "decode", "positions")
            means = (
                f" It chooses the reference's next token at {words.percent(share)} of {positions} places."
                if positions
                else ""
            )
            return f"All {words.count(len(self.checks), 'check')} hold.{means}"
        parts = [part for part in PARTS if any(check["part"] == part for check in self.failures)]
        faults = "; ".join(FAULTS[part] for part in parts)
        return (
            f"{len(self.failures)} of {words.count(len(self.checks), 'check')} fail: {faults}. Do not ship this file."
        )

    @property
    def caveats(self) -> list[str]:
        """What a reader must know before believing this target's figures."""
        notes = []
        if self.interpreted:
            notes.append(
                "Proven in kobako's own interpreter of the saved program, not in Apple's runtime: "
                "its speed is no phone speed."
                if self.name == "coreml"
                else "Proven in an interpreter: its speed is no phone speed."
            )
        if self.measurement is None:
            notes.append(self.unmeasured)
        return notes

    @property
    def unmeasured(self) -> str:
        return (
            "Speed was not measured: a failing proof is not worth timing."
            if self.failures
            else "Speed was not measured."
        )


def targets_of(data: Mapping[str, Any]) -> list[TargetFacts]:
    """Every target of the data, in its order."""
    return [TargetFacts(name, entry["title"], entry) for name, entry in data["targets"].items()]


def headline(data: Mapping[str, Any]) -> str:
    """The whole package's verdict as one sentence."""
    targets = targets_of(data)
    failing = [target.title for target in targets if not target.passed]
    if unmade := data["failures"]:
        return f"{words.listed(list(unmade))} could not be made."
    if not targets:
        return "Nothing was built, so nothing is proven."
    if failing:
        verb = "does" if len(failing) == 1 else "do"
        return f"{words.listed(failing)} {verb} not pass the proof."
    number = {2: "Both", 3: "All three", 4: "All four"}.get(len(targets), f"All {len(targets)}")
    who = f"{targets[0].title} is" if len(targets) == 1 else f"{number} formats are"
    return f"{who} proven to say what the {_standard(targets)}."


def _standard(targets: list[TargetFacts]) -> str:
    """What was proven, no more: where quantizing changed many first choices, the headline says how many."""
    agreements = [target.figure("quality", "top1") for target in targets]
    least = min((value for value in agreements if isinstance(value, float)), default=1.0)
    if least >= FAITHFUL_TOP1:
        return "model says"
    return f"quantized model says, which picks the original's next token only {words.percent(least)} of the time"


def recipe_words(data: Mapping[str, Any]) -> str:
    """How the weights are stored, in words."""
    recipe = data["recipe"]
    bits, group = recipe["weight_bits"], recipe["group_size"]
    if bits == 16:
        return "weights in 16-bit floating point"
    scale = f"one scale per {group} weights" if group else "one scale per output channel"
    kind = "float" if recipe["embedding_bits"] == 16 else "integer"
    own = recipe.get("calibration_sha256")
    calibrated = f"; calibrated on a text of the builder's own (SHA-256 {own[:12]}…)" if own else ""
    tuned = "; codes tuned by gradients" if recipe.get("rounding") == "tuned" else ""
    return f"{bits}-bit integer weights, {scale}; {recipe['embedding_bits']}-bit {kind} embedding{tuned}{calibrated}"


def cache_words(data: Mapping[str, Any]) -> str:
    """What is said of a KV cache that is not the target's own float type, and its size; empty otherwise."""
    if data.get("kv_cache", "float") == "float":
        return ""
    sizes = {name: entry["kv_cache_bytes"] for name, entry in data["targets"].items()}
    return (
        ", keys and values in int8 ("
        + words.listed([f"{name}: {words.human_bytes(n)}" for name, n in sizes.items()])
        + ")"
    )


def origin_words(data: Mapping[str, Any]) -> str:
    """Where the model came from; of a local path only its last name, since other people will read it."""
    origin = _shown(str(data["source"]["origin"]))
    return f"{origin}, nested model {data['source']['slice']}" if data["source"].get("slice") else origin


def adapter_words(data: Mapping[str, Any]) -> str:
    """What adapter was merged, and where it came from."""
    adapter = data["source"]["adapter"]
    return f"{adapter['name']} from {_shown(str(adapter['origin']))}, revision {adapter['revision']}"


def licence_words(data: Mapping[str, Any]) -> str:
    """The model's licence, and the adapter's where that is another one."""
    source = data["source"]
    adapter = source.get("adapter") or source
    return " and ".join(dict.fromkeys((str(source["licence"]), str(adapter["licence"]))))


def _shown(origin: str) -> str:
    if origin.startswith("file:"):
        return f"a local file or directory ({origin.rstrip('/').rpartition('/')[2]})"
    return origin
