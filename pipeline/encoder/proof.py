"""Exported + standard → Report of an encoder: weights, fidelity, quality, behaviour, as for every model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

from ..contracts import Check, Exported, FloatArray, Progress, Report
from ..errors import KobakoError
from ..heads import Head
from ..protocols import EncoderRuntime, Target
from ..tokens import ShippedTokenizer
from ..validate.fidelity import check_weights
from .compare import Comparison, probabilities
from .engine import Reading, TextEncoder
from .gates import (
    ADDED_NOISE,
    ADDED_NOISE_DISTANCE,
    PADDING_ERROR,
    distance_demand,
    distance_words,
    fidelity_gate,
    quality_gate,
)
from .spans import settled
from .standard import EncoderStandard

PADDED_TEXTS = 4
SPOKEN_TEXTS = 5


def validate(target: Target, exported: Exported, standard: EncoderStandard, progress: Progress) -> Report:
    """Prove one artifact. Raises BadArtifact when it cannot even be loaded."""
    figures: dict[str, Any] = {}
    progress(0.01, "reading the integers back")
    checks = [check_weights(target.stored_weights(exported), standard.facts["weight_digests"])]
    with closing(target.encoder(exported)) as runtime:
        answers = answers_of(runtime, standard, exported, lambda f: progress(0.05 + 0.7 * f, "texts, one by one"))
        checks += fidelity_checks(answers, standard, exported, figures)
        checks.append(check_padding(runtime, answers, standard, exported))
    checks += quality_checks(standard, figures)
    progress(0.85, "text in the engine")
    checks += behaviour_checks(target, exported, standard, answers)
    return Report(
        target=exported.target,
        recipe=standard.recipe.name,
        activations=exported.activations,
        checks=tuple(checks),
        figures=figures,
    )


def answers_of(
    runtime: EncoderRuntime, standard: EncoderStandard, exported: Exported, tick: Callable[[float], None]
) -> FloatArray:
    """What the artifact answers to each text ``[N, E]``."""
    rows = []
    for number, one in enumerate(standard.ids, start=1):
        answer = runtime.encode(one, [1] * len(one))
        rows.append(settled(answer, len(one), exported.context_tokens, standard.head))
        tick(number / len(standard.ids))
    return np.stack(rows)


def fidelity_checks(
    answers: FloatArray, standard: EncoderStandard, exported: Exported, figures: dict[str, Any]
) -> list[Check]:
    """Artifact against quantized reference; and, where activations are rounded, against the float one."""
    head, gate = standard.head, fidelity_gate(exported.activations, standard.figures["noise"])
    compared = Comparison.of(standard.answers, answers, head)
    figures["fidelity"] = {"texts": compared.figures()}
    checks = [
        check("fidelity", "answers", distance_words(compared.distance, head), distance_demand(gate.distance, head),
              compared.distance <= gate.distance),
        check("fidelity", "largest error", f"{compared.worst:.2e}", f"≤ {gate.error:.2g} of the largest number",
              compared.worst <= gate.error),
    ]  # fmt: skip
    if head.chooses:
        checks.append(check("fidelity", head.chosen, f"{compared.agreement:.1%} the same", f"≥ {gate.agreement:.0%}",
                            compared.agreement >= gate.agreement))  # fmt: skip
    if standard.kind == "int8-dynamic":
        modelled = float(standard.figures["float_distance"])
        measured, limit = Comparison.of(standard.float_answers, answers, head).distance, ADDED_NOISE * modelled
        limit += ADDED_NOISE_DISTANCE
        checks.append(check("fidelity", "cost of rounding", distance_words(measured, head),
                            distance_demand(limit, head), measured <= limit))  # fmt: skip
    return checks


def check_padding(runtime: EncoderRuntime, answers: FloatArray, standard: EncoderStandard, exported: Exported) -> Check:
    """Tokens behind a text that its mask hides change nothing, whatever they are."""
    worst = 0.0
    shortest = sorted(range(len(standard.ids)), key=lambda index: len(standard.ids[index]))[:PADDED_TEXTS]
    for index in shortest:
        ids = standard.ids[index]
        padding = exported.context_tokens - len(ids)
        padded = runtime.encode([*ids, *(ids * exported.context_tokens)[:padding]], [1] * len(ids) + [0] * padding)
        padded = settled(padded, len(ids), exported.context_tokens, standard.head)
        worst = max(worst, Comparison.of(answers[index][None], padded[None], standard.head).worst)
    limit = PADDING_ERROR[exported.activations]
    value = f"{worst:.2e} with padding behind {len(shortest)} texts"
    return check("fidelity", "masked tokens", value, f"≤ {limit:.2g}", worst <= limit)


def quality_checks(standard: EncoderStandard, figures: dict[str, Any]) -> list[Check]:
    """Quantized reference against the original: what the recipe costs."""
    found, gate, head = standard.figures, quality_gate(standard.recipe), standard.head
    figures["quality"] = {key: found[key] for key in found if key not in ("noise", "float_distance")}
    original = standard.facts["original"]
    advice = "try --recipe int8" if standard.recipe.weight_bits == 4 else "try --recipe float16"
    distance, limit = found["quality_distance"], gate.distance if head.task == "embed" else gate.kl_nats
    checks = [check("quality", "to the original", distance_words(distance, head), distance_demand(limit, head),
                    distance <= limit, advice)]  # fmt: skip
    if head.chooses:
        same = found["quality_agreement"]
        demand = f"≥ {gate.agreement:.0%}"
        return [
            *checks,
            check("quality", f"{head.chosen} of the original", f"{same:.1%}", demand, same >= gate.agreement, advice),
        ]
    needed, correlated = original["found"] - gate.lost, found["similarity_correlation"]
    return [
        *checks,
        check("quality", "retrieval", f"{found['found']} of {found['questions']} questions find their passage",
              f"≥ {needed} (the original: {original['found']})", found["found"] >= needed, advice),
        check("quality", "similarities", f"correlation {correlated:.4f}", f"≥ {gate.correlation:g}",
              correlated >= gate.correlation, advice),
    ]  # fmt: skip


def behaviour_checks(target: Target, exported: Exported, standard: EncoderStandard, answers: FloatArray) -> list[Check]:
    """The tokenizer beside the artifact gives the reference's ids, and text in gives what ids in gave."""
    texts = standard.facts["texts"]
    try:
        tokenizer = ShippedTokenizer(exported.directory)
        ids = [tokenizer.encode_whole(text, exported.context_tokens) for text in texts]
    except (OSError, ValueError, KobakoError) as error:
        return [check("behaviour", "tokenizer", "unreadable", "files beside the artifact", False, str(error))]
    same = sum(one == other for one, other in zip(ids, standard.ids, strict=True))
    checks = [check("behaviour", "token ids", f"{same} of {len(ids)} texts", "identical", same == len(ids))]
    whole = [index for index, one in enumerate(standard.ids) if len(one) < exported.context_tokens]  # surely not cut
    with closing(TextEncoder.of(target.encoder(exported), exported)) as engine:
        errors = [
            spoken_error(engine.read(texts[index], standard.head), answers[index], tokenizer, standard.head)
            for index in whole[:SPOKEN_TEXTS]
        ]
    worst = max(errors, default=float("nan"))
    advice = "" if whole else "none of the proof's texts fits: use a longer --context"
    value = f"{worst:.2e} from ids"
    return [*checks, check("behaviour", "text in the engine", value, "≤ 1e-05", worst <= 1e-5, advice)]


def spoken_error(reading: Reading, answer: FloatArray, tokenizer: ShippedTokenizer, head: Head) -> float:
    """How far what the engine says to a text is from the answer ``[E]`` to its ids."""
    if head.task != "fill-mask":
        return Comparison.of(answer[None], np.asarray([reading.values], np.float32), head).worst
    best = int(answer.argmax())
    said = reading.labels.get(tokenizer.token_text(best), 0.0)
    return abs(said - float(probabilities(answer[None], head)[0][best]))


def check(part: Any, name: str, value: str, demand: str, passed: bool, advice: str = "") -> Check:
    """A Check whose advice is told only when it fails; a NaN compared with anything fails."""
    ok = bool(passed)
    return Check(part=part, name=name, value=value, demand=demand, passed=ok, detail="" if ok else advice)
