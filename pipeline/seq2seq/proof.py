"""Exported + standard → Report of an encoder-decoder: the demands are those on every model that writes text."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ..contracts import Check, Exported, Progress, Report
from ..protocols import Target
from ..standard import Standard
from ..validate.behaviour import check_greedy, check_prompts, check_stop, check_tokenizer, compare_greedy
from ..validate.fidelity import added_noise_check, check_weights, compare_decode, fidelity_checks
from ..validate.gates import fidelity_gate, for_few_positions
from ..validate.proof import comparison_figures, quality_checks
from .engine import engine_of
from .runtime import Seq2SeqRuntime, Sourced
from .texts import proof_prompts

PADDED_SOURCES = 3
HINT = "this runtime does not show its layers; `kobako inspect` shows the artifact"


def validate(target: Target, exported: Exported, standard: Standard, progress: Progress) -> Report:
    """Prove one artifact. Raises BadArtifact when it cannot even be loaded."""
    figures: dict[str, Any] = {}
    progress(0.01, "reading the integers back")
    checks = [check_weights(target.stored_weights(exported), standard.facts["weight_digests"])]
    checks += prove_fidelity(target, exported, standard, progress, figures)
    checks += quality_checks(standard, figures)
    checks += prove_behaviour(target, exported, standard, figures)
    return Report(
        target=exported.target, recipe=standard.recipe.name, activations=exported.activations, checks=tuple(checks),
        figures=figures,
    )  # fmt: skip


def prove_fidelity(
    target: Target, exported: Exported, standard: Standard, progress: Progress, figures: dict[str, Any]
) -> list[Check]:
    """Answers token by token; then again with padding behind the sources, which must change nothing."""
    sources = standard.facts["sources"]
    few = replace(standard, windows=standard.windows[:PADDED_SOURCES])
    with closing(Seq2SeqRuntime(target.seq2seq(exported), exported)) as runtime:
        plain = Sourced(runtime, [(ids, [1] * len(ids)) for ids in sources])
        decode = compare_decode(plain, standard, lambda f: progress(0.05 + 0.6 * f, "answers, token by token"))
        hidden = Sourced(runtime, [padded(ids, exported.context_tokens) for ids in sources[:PADDED_SOURCES]])
        padding = compare_decode(hidden, few, lambda f: progress(0.65 + 0.15 * f, "padded sources"))
    gate = fidelity_gate(exported.activations, standard.quality["noise"])
    figures["fidelity"] = {
        "decode": comparison_figures(decode), "prefill": comparison_figures(padding),
        "key_error_per_layer": None, "first_departing_layer": HINT,
    }  # fmt: skip
    cost = added_noise_check(decode, standard, HINT)
    checks = []
    for name, comparison in (("decode", decode), ("padded source", padding)):
        own = for_few_positions(gate, exported.activations, len(comparison.kl_nats))
        checks += fidelity_checks(name, comparison, own, HINT)
    return [*checks, cost] if cost else checks


def padded(ids: list[int], context_tokens: int) -> tuple[list[int], list[int]]:
    """A source with other tokens behind it, up to the context, that the mask hides."""
    more = context_tokens - len(ids)
    return [*ids, *(ids * context_tokens)[:more]], [1] * len(ids) + [0] * more


def prove_behaviour(target: Target, exported: Exported, standard: Standard, figures: dict[str, Any]) -> list[Check]:
    """The shipped tokenizer gives the ids of the reference's, and text in gives the reference's text."""
    checks = check_tokenizer(
        exported.directory, standard, partial(proof_prompts, standard.facts["model_type"], exported.context_tokens)
    )
    if not all(check.passed for check in checks):
        return checks
    with closing(engine_of(target, exported)) as engine:
        answers = compare_greedy(engine, standard, exported.directory, lambda _: None)
        checks += [check_prompts(answers), check_greedy(answers), check_stop(engine, standard, exported.directory)]
    figures["greedy"] = [asdict(answer) for answer in answers]
    return checks
