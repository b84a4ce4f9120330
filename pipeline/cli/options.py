"""Options that several commands share, and the parsing of units."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from ..cache import Cache, default_root
from ..codec import json_text
from ..contracts import DEFAULT_RECIPE, RECIPES, ExportOptions, KvCache, Recipe
from ..errors import UsageError
from ..mixture import Goal
from .answer import answer_given

F = TypeVar("F", bound=Callable[..., Any])
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress.")
cache_option = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Cache [default: $KOBAKO_CACHE or the user's].",
)
MIXTURE_BASE = "int4-small"
recipe_option = click.option(
    "--recipe", "-r", type=click.Choice(list(RECIPES)), help=f"How weights are stored [default: {DEFAULT_RECIPE}]."
)
size_budget_option = click.option(
    "--size-budget", help="Mix 4 and 8 bits by measurement: the best model whose artifact fits in, say, 90MB."
)
max_kl_option = click.option(
    "--max-kl", type=click.FloatRange(min=0.0, min_open=True), help="Mix 4 and 8 bits by measurement: the smallest "
    "model whose mean KL divergence from the original is at most so many nats, say 0.03.",
)  # fmt: skip
calibration_option = click.option(
    "--calibration", type=click.Path(path_type=Path, dir_okay=False), help="A UTF-8 text to calibrate on instead of "
    "kobako's own: a few pages of what the model will read.",
)  # fmt: skip
effort_option = click.option(
    "--effort", type=click.Choice(["normal", "high"]), default="normal", show_default=True,
    help="With high, 4-bit codes are tuned by gradients, layer by layer: better, and takes minutes instead of one.",
)  # fmt: skip
slice_option = click.option(
    "--slice", "slice_text", default="", help="Take a nested model out of a Gemma 3n (MatFormer): e2b, or widths of "
    "feed-forward layers and layers to leave out, as in 'ffn=8192,4:16384;skip=20-24' (docs/slices.md).",
)  # fmt: skip
context_option = click.option(
    "--context", "-c", "context_tokens", type=click.IntRange(64, 131072),
    help="Tokens of prompt and answer together, or of an encoder's text "
    f"[default: {ExportOptions().context_tokens}; an encoder's own length].",
)  # fmt: skip
kv_cache_option = click.option(
    "--kv-cache", type=click.Choice(["float", "int8"]), default="float", show_default=True,
    help="How keys and values are kept: int8 takes about a quarter of the "
    "memory and more time per token; for ExecuTorch only.",
)  # fmt: skip
offline_option = click.option("--offline", is_flag=True, help="Use only what is on this machine already.")


def trust_options(function: F) -> F:
    """Whom to believe, as `signature.trust.choose_trust` takes it; ``--allow-unsigned`` is each command's own."""
    file = click.Path(path_type=Path, dir_okay=False)
    for decorate in (
        click.option("--issuer", help="The OpenID issuer that knows the identity, such as a CI's."),
        click.option(
            "--identity", help="Believe keyless signatures of this identity; with --issuer, and model_signing."
        ),
        click.option(
            "--trust", type=file, help="Believe this trust file [default: $KOBAKO_TRUST or the user's trust.toml]."
        ),
        click.option("--certificate", type=file, help="Believe certificates of this authority, PEM."),
        click.option("--key", type=file, help="Believe this public key, PEM."),
    ):
        function = decorate(function)
    return function


def target_option(function: F) -> F:
    """``--target``, repeatable; checked against the folder of targets when it is used."""
    decorate = click.option(
        "--target", "-t", "targets", multiple=True, help="executorch, coreml, litert; repeatable [default: all]."
    )
    return decorate(function)


def chosen_targets(names: tuple[str, ...]) -> tuple[str, ...]:
    """The targets asked for, each once, or all. Raises NotFound for one that does not exist."""
    from kobako import targets

    for name in names:
        targets.get(name)
    return tuple(dict.fromkeys(names)) or tuple(targets.names())


def chosen_recipe(name: str | None, goal: Goal | None = None) -> Recipe:
    """The recipe asked for, or the default; with a goal, what the mixture starts from. Raises UsageError for both."""
    if goal is None:
        return RECIPES[name or DEFAULT_RECIPE]
    if name is not None:
        raise UsageError("--recipe says how weights are stored, --size-budget and --max-kl decide it.", "Drop one.")
    return RECIPES[MIXTURE_BASE]


def calibrated_on(recipe: Recipe, path: Path | None) -> Recipe:
    """The recipe with the user's calibration text in it. Raises UsageError for a text, or a recipe, that is not fit."""
    from ..calibration import digest, read_text

    if path is None:
        return recipe
    if not recipe.calibrated:
        raise UsageError(f"recipe {recipe.name} reads no calibration text.", "Leave --calibration out.")
    return replace(recipe, calibration_sha256=digest(read_text(path)))


def with_effort(recipe: Recipe, effort: str) -> Recipe:
    """The recipe, its 4-bit codes tuned when `effort` is high. Raises UsageError for a recipe without such codes."""
    if effort == "normal":
        return recipe
    if not recipe.asymmetric:
        raise UsageError(
            f"recipe {recipe.name} has nothing that --effort high would tune.", "It is for int4 and int4-small."
        )
    return replace(recipe, rounding="tuned")


def chosen_goal(size_budget: str | None, max_kl: float | None) -> Goal | None:
    """The goal of a mixture, or None. Raises UsageError for what is not a size."""
    size = parse_bytes(size_budget)
    return None if size is None and max_kl is None else Goal(size_bytes=size, loss_nats=max_kl)


def chosen_options(context_tokens: int | None, kv_cache: KvCache) -> ExportOptions:
    """The context asked for, or the default, and the cache."""
    made = ExportOptions(kv_cache=kv_cache)
    return made if context_tokens is None else replace(made, context_tokens=context_tokens)


def open_cache(directory: Path | None, shared_url: str = "") -> Cache:
    from ..shared_cache import SharedCache

    shared = SharedCache(shared_url) if shared_url else None
    return Cache((directory or default_root()).expanduser().absolute(), shared)


def parse_bytes(text: str | None) -> int | None:
    """``6GB``, ``512MiB``, ``3e9`` → bytes. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmg]i?)?b?\s*", text.lower())
    if not match:
        raise UsageError(f"{text!r} is not a size.", "Write it like 6GB or 512MiB.")
    return int(float(match[1]) * UNITS[match[2] or ""])


def print_json(value: object) -> None:
    """Print a command's JSON document; the only one that stdout will hold."""
    click.echo(json_text(value))
    answer_given()
