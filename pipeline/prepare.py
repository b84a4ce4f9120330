"""What all targets share, made before any of them: the model's files, the reference, the quantized weights.

With a goal (a size, a loss) the recipe itself is decided here: by quantizing everything to 4 bits, measuring what each
part loses by it, and giving 8 bits to the parts that need them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from kobako import targets

from . import families
from .allocate import allocate, mixtures
from .cache import Entry
from .codec import from_json, read_json, to_json
from .contracts import ExportOptions, Quantized, Recipe, Reference, Source
from .embeddings import TABLE_FILE
from .errors import KobakoError, NotEnoughMemory, UnsupportedModel, UnsupportedRecipe
from .estimate import Estimate, estimate
from .fetch import ModelRef, fetch, parse_adapter, with_adapter
from .heads import Head, encoder_task, find_head
from .mixture import Curve, Goal, Mixture
from .reference.slices import sliced_source
from .run import Request, Run
from .seq2seq.limits import check_recipe, is_seq2seq, own_options
from .stagecode import load_inputs, quantize_inputs, sensitivity_inputs

GRAPH_BYTES = 1_500_000
"""What an artifact holds besides weights and tokenizer, rounded up."""


@dataclass(frozen=True)
class Loaded:
    """A model that was loaded and found feasible; `need`: what the stages are expected to take."""

    source: Source
    reference: Reference
    key: str
    need: Estimate


@dataclass(frozen=True)
class Prepared:
    """What all targets share: values with the cache keys they came from.

    Attributes:
        curve: the mixtures of 4 and 8 bits that a goal was chosen from; empty without a goal.
    """

    loaded: Loaded
    quantized: Quantized
    quantized_key: str
    curve: tuple[Mixture, ...] = ()


def check_target(name: str, recipe: Recipe) -> None:
    """Raise NotFound, MissingDependency or UnsupportedRecipe for a target that cannot be built."""
    target = targets.get(name)
    targets.require(target)
    if recipe.name not in target.recipes:
        raise UnsupportedRecipe(
            f"target {name} cannot hold recipe {recipe.name}.", f"It holds: {', '.join(target.recipes)}."
        )


def fetch_source(run: Run, ref: ModelRef) -> Source:
    """The model's files. Raises what `fetch` raises, after the observer was told."""
    run.observer.started("fetch")
    began = time.monotonic()

    def progress(fraction: float, text: str) -> None:
        run.observer.progress("fetch", fraction, text)

    downloads, offline = run.cache.root / "downloads", run.request.offline
    try:
        source = fetch(ref, downloads, progress, offline=offline)
        if run.request.adapter:
            source = with_adapter(source, parse_adapter(run.request.adapter), downloads, progress, offline=offline)
        source = sliced_source(source, run.request.slice)
    except KobakoError as error:
        run.observer.failed("fetch", error)
        raise
    run.observer.finished("fetch", time.monotonic() - began, cached=False)
    return source


def load(run: Run, source: Source, limit: int) -> Loaded:
    """Load the model and settle the request's options.

    Raises NotEnoughMemory and UnsupportedModel before time is spent, UnsupportedRecipe.
    """
    task = encoder_task(run.request.tasks)
    loaded = run.stage(
        "load",
        "load",
        load_inputs(source, task),
        lambda out: {"source": to_json(source), "task": task, "out": str(out)},
    )
    value = dict(loaded.value) | {"source": to_json(source)}  # the files may lie elsewhere than when it was cached
    reference = from_json(value, Reference)
    request = run.request = settled(run.request, reference.directory)
    return Loaded(source, reference, loaded.key, check_feasible(reference, request, limit))


def prepare(run: Run, loaded: Loaded) -> Prepared:
    """Quantize, with the recipe that the request names or that its goal leads to. Raises UnsupportedRecipe."""
    request, reference = run.request, loaded.reference
    recipe, curve = request.recipe, tuple[Mixture, ...]()
    if request.goal is not None:
        recipe, curve = _mixture(run, reference, loaded.key, request.goal)
    quantized = _quantize(run, reference, loaded.key, recipe, "quantize")
    return Prepared(loaded, from_json(quantized.value, Quantized), quantized.key, curve)


def settled(request: Request, home: Path) -> Request:
    """The request, its context that of the model in `home` where it was not asked for and is no decoder's.

    Raises UnsupportedRecipe for what an encoder or an encoder-decoder cannot have: a mixture of 4 and 8 bits, whose
    sensitivity is measured on next tokens, and another KV cache; and for recipes of which `check_recipe` tells.
    """
    head, config = find_head(home), read_json(home / "config.json")
    check_recipe(config, request.recipe)
    if head is None and is_seq2seq(config):
        if request.options.kv_cache != "float":
            raise UnsupportedRecipe("caches of an encoder-decoder are floats.", "Leave --kv-cache out.")
        if request.goal is not None:
            raise no_mixture("encoder-decoders")
        return replace(request, options=own_options(request.options, config)) if request.own_context else request
    if head is None:
        return request
    if request.options.kv_cache != "float":
        raise UnsupportedRecipe("an encoder reads its text at once and has no KV cache.", "Leave --kv-cache out.")
    if request.goal is not None:
        raise no_mixture("encoders")
    return replace(request, options=encoder_options(request.options, head)) if request.own_context else request


def no_mixture(kind: str) -> UnsupportedRecipe:
    """The error for a goal that only decoders can be given."""
    return UnsupportedRecipe(
        f"mixtures of 4 and 8 bits are measured for models that continue text, not for {kind}.",
        "Leave --size-budget and --max-kl out, and name a --recipe.",
    )


def encoder_options(options: ExportOptions, head: Head) -> ExportOptions:
    """The options with the context an encoder was made for."""
    return replace(options, context_tokens=head.longest_tokens)


def _quantize(run: Run, reference: Reference, load_key: str, recipe: Recipe, label: str) -> Entry:
    return run.stage(
        "quantize",
        label,
        quantize_inputs(load_key, recipe),
        lambda out: {
            "reference": to_json(reference), "recipe": to_json(recipe), "out": str(out),
            "calibration": run.request.calibration_path,
        },
    )  # fmt: skip


def _mixture(run: Run, reference: Reference, load_key: str, goal: Goal) -> tuple[Recipe, tuple[Mixture, ...]]:
    """Everything at 4 bits, what each part loses by it, and the recipe that follows from both and from the goal.

    Returned with all mixtures that there were to choose from.
    """
    narrow = _quantize(run, reference, load_key, run.request.recipe, "quantize to 4 bits")
    measured = run.stage(
        "sensitivity",
        "sensitivity",
        sensitivity_inputs(load_key, narrow.key),
        lambda _: {
            "reference": to_json(reference), "narrow": narrow.value, "calibration": run.request.calibration_path,
        },
    )  # fmt: skip
    rounds = any(targets.get(name).activations(run.request.recipe) == "int8-dynamic" for name in run.request.targets)
    quantized = from_json(narrow.value, Quantized)
    table = sum(path.stat().st_size for path in quantized.directory.glob(TABLE_FILE))
    tokenizer = sum(path.stat().st_size for path in reference.tokenizer_dir.iterdir())
    curve = from_json(measured.value, Curve)
    recipe = allocate(
        curve, goal, run.request.recipe,
        rounds_activations=rounds, beside_bytes=tokenizer + table + GRAPH_BYTES,
        nested=families.get(reference.model_type).nested,
    )  # fmt: skip
    run.request = replace(run.request, recipe=recipe)
    return recipe, mixtures(curve)


def check_feasible(reference: Reference, request: Request, limit: int) -> Estimate:
    """Refuse what cannot work, before any time is spent: context beyond the model's, memory beyond the machine's."""
    config = read_json(reference.directory / "config.json")
    longest = int(config.get("max_position_embeddings") or request.options.context_tokens)
    if request.options.context_tokens > longest:
        raise UnsupportedModel(
            f"{reference.name} was trained for {longest} tokens, fewer than {request.options.context_tokens}.",
            f"Use --context {longest} or less.",
        )
    need = estimate(config, request.recipe, list(request.targets))
    stage, most = max(need.rss_bytes.items(), key=lambda item: item[1])
    if most > limit:
        raise NotEnoughMemory(
            f"{stage} of {reference.name} needs about {most / 1e9:.1f} GB; {limit / 1e9:.1f} GB may be used.",
            "Run it on a larger machine, or try with --memory-limit to raise the limit.",
        )
    return need
