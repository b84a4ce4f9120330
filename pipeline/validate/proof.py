"""The order of the proof, and its report."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import Any

from ..contracts import Check, Exported, Progress, Report
from ..protocols import Target
from ..standard import Standard
from .behaviour import check_greedy, check_prompts, check_stop, check_tokenizer, compare_greedy
from .fidelity import (
    Comparison,
    added_noise_check,
    check_weights,
    compare_decode,
    compare_prefill,
    fidelity_checks,
    first_departing_layer,
    key_errors,
)
from .gates import fidelity_gate, for_few_positions, quality_gate


def validate(target: Target, exported: Exported, standard: Standard, progress: Progress) -> Report:
    """Prove one artifact. Raises BadArtifact when it cannot even be loaded."""
    figures: dict[str, Any] = {}
    checks: list[Check] = []
    progress(0.01, "reading the integers back")
    checks.append(check_weights(target.stored_weights(exported), standard.facts["weight_digests"]))
    checks += _prove_fidelity(target, exported, standard, progress, figures)
    checks += quality_checks(standard, figures)
    checks += _prove_behaviour(target, exported, standard, progress, figures)
    return Report(
        target=exported.target,
        recipe=standard.recipe.name,
        activations=exported.activations,
        checks=tuple(checks),
        figures=figures,
    )


def _prove_fidelity(
    target: Target, exported: Exported, standard: Standard, progress: Progress, figures: dict[str, Any]
) -> list[Check]:
    with closing(target.runtime(exported)) as runtime:
        decode = compare_decode(runtime, standard, lambda f: progress(0.05 + 0.5 * f, "decode, token by token"))
        prefill = compare_prefill(runtime, standard, lambda f: progress(0.55 + 0.2 * f, "prefill, in chunks"))
        errors = key_errors(runtime, standard)
    hint = first_departing_layer(errors, exported.activations)
    gate = fidelity_gate(exported.activations, standard.quality["noise"], exported.kv_cache)
    figures["fidelity"] = {
        "decode": comparison_figures(decode),
        "prefill": comparison_figures(prefill),
        "key_error_per_layer": errors,
        "first_departing_layer": hint,
    }
    noise = added_noise_check(decode, standard, hint)
    few = for_few_positions(gate, exported.activations, len(prefill.kl_nats))
    checks = fidelity_checks("decode", decode, gate, hint) + fidelity_checks("prefill", prefill, few, hint)
    return [*checks, noise] if noise else checks


def comparison_figures(comparison: Comparison) -> dict[str, Any]:
    """A comparison for the report."""
    return {
        "positions": len(comparison.kl_nats),
        "kl_nats": comparison.mean_kl,
        "float_kl_nats": float(comparison.float_kl_nats.mean()),
        "kl_nats_max": float(comparison.kl_nats.max()),
        "top1": comparison.top1,
        "kl_nats_per_token": [float(f"{value:.3g}") for value in comparison.kl_nats],
    }


def quality_checks(standard: Standard, figures: dict[str, Any]) -> list[Check]:
    """Quantized reference against the original: what the recipe costs."""
    quality, gate = standard.quality, quality_gate(standard.recipe)
    figures["quality"] = {key: quality[key] for key in quality if key not in ("greedy", "margins")}
    advice = "try --recipe int8" if standard.recipe.weight_bits == 4 else "try --recipe float16"
    kl_ok, top1_ok = quality["kl_nats"] <= gate.kl_nats, quality["top1"] >= gate.top1
    return [
        Check(
            part="quality", name="KL to the original", value=f"{quality['kl_nats']:.2e} nats",
            demand=f"≤ {gate.kl_nats:g}", passed=kl_ok, detail="" if kl_ok else advice,
        ),
        Check(
            part="quality", name="top-1 of the original", value=f"{quality['top1']:.1%}", demand=f"≥ {gate.top1:.0%}",
            passed=top1_ok, detail="" if top1_ok else advice,
        ),
    ]  # fmt: skip


def _prove_behaviour(
    target: Target, exported: Exported, standard: Standard, progress: Progress, figures: dict[str, Any]
) -> list[Check]:
    checks = check_tokenizer(exported.directory, standard)
    if not all(check.passed for check in checks):
        return checks
    with closing(target.engine(exported)) as engine:
        answers = compare_greedy(
            engine, standard, exported.directory, lambda f: progress(0.8 + 0.18 * f, "greedy text in the engine")
        )
        checks += [check_prompts(answers), check_greedy(answers), check_stop(engine, standard, exported.directory)]
    figures["greedy"] = [asdict(answer) for answer in answers]
    return checks
