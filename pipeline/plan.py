"""What a build would do: which stages are cached, and what the others will need. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import families
from .allocate import mixtures
from .cache import Cache, stage_key
from .codec import from_json, read_json
from .contracts import RECIPES, ExportOptions, Reference, Source
from .errors import KobakoError
from .estimate import Estimate, estimate
from .expected import has_original
from .heads import encoder_task
from .kvcache import check_kv_cache, kv_cache_bytes
from .leftout import left_out, text_only
from .mixture import Curve, Mixture
from .prepare import settled
from .reference.gguf import read_header
from .reference.grids import source_grid
from .reference.slices import Slice, check_nested, check_plain, parse_slice, sliced_config, sliced_source
from .reference.weights import gguf_path
from .run import Request
from .seq2seq.limits import check_recipe, is_seq2seq, own_options
from .stagecode import (
    expect_inputs,
    export_inputs,
    load_inputs,
    original_inputs,
    quantize_inputs,
    sensitivity_inputs,
    validate_inputs,
)
from .system import Machine


@dataclass(frozen=True, kw_only=True)
class Step:
    """A stage, whether it is cached or will run, and the resident memory it will need (0 = not known)."""

    stage: str
    state: str
    rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of a build in order; sizes are 0 when the model's config is not on this machine yet.

    Attributes:
        slice: the nested model that was asked for, in the one way of writing it; empty = all of the checkpoint.
        left_out: what the checkpoint reads besides text, which is not exported.
        curve: mixtures of 4 and 8 bits, smallest first; empty until a build with a goal has measured the parts.
        context_tokens: how many the exports will take; 0 = not known yet.
        kv_cache_bytes: of the whole context's keys and values, by target.
    """

    model: str
    steps: tuple[Step, ...]
    parameters: int
    weights_bytes: int
    disk_bytes: int
    available_bytes: int
    note: str
    slice: str = ""
    left_out: tuple[str, ...] = ()
    curve: tuple[Mixture, ...] = ()
    context_tokens: int = 0
    kv_cache_bytes: Mapping[str, int] = field(default_factory=dict)


def plan(request: Request, cache: Cache) -> Plan:
    """The plan of ``kobako build``.

    Raises NotFound (model), UnsupportedRecipe (a cache that a target lacks), UsageError and UnsupportedModel (a slice).
    """
    from .fetch import fetch, parse

    check_kv_cache(request.targets, request.options.kv_cache)
    taken = parse_slice(request.slice) if request.slice else None
    ref = parse(request.model)
    try:
        source = fetch(ref, cache.root / "downloads", lambda _fraction, _text: None, offline=True)
    except KobakoError:
        return _unfetched(request, taken)
    return _fetched(request, sliced_source(source, request.slice), cache)


def _unfetched(request: Request, taken: Slice | None) -> Plan:
    from .catalogue import find

    entry = find(request.model) if taken is None else None  # the catalogue tells parameters of whole models
    steps = [
        "fetch",
        "load",
        "quantize",
        *(["original"] if entry is None or has_original(entry.model_type) else []),
        "expect",
        *[f"{name} {what}" for name in request.targets for what in ("export", "proof")],
    ]
    return Plan(
        model=request.model,
        slice=taken.text if taken else "",
        steps=tuple(Step(stage=stage, state="will run", rss_bytes=0) for stage in steps),
        parameters=entry.parameters if entry else 0,
        weights_bytes=0,
        disk_bytes=0,
        available_bytes=Machine.here().available_bytes,
        note="The model is not on this machine yet: sizes are known once its config.json is.",
    )


def _fetched(request: Request, source: Source, cache: Cache) -> Plan:
    load_key = stage_key("load", load_inputs(source, encoder_task(request.tasks)))
    config = _config(cache, load_key, source)
    names, recipe, options = request.targets, request.recipe, _options(request, cache, load_key, config)
    quantize_key = stage_key("quantize", quantize_inputs(load_key, recipe))
    expect_key = stage_key("expect", expect_inputs(load_key, quantize_key, recipe, options, names))
    keys = [("load", "load", load_key), ("quantize", "quantize", quantize_key)]
    if config is None or has_original(str(config.get("model_type"))):
        keys.append(("original", "original", stage_key("original", original_inputs(load_key, options.context_tokens))))
    keys.append(("expect", "expect", expect_key))
    for name in names:
        export_key = stage_key("export", export_inputs(quantize_key, options, name))
        keys.append((f"{name} export", "export", export_key))
        keys.append((f"{name} proof", "validate", stage_key("validate", validate_inputs(export_key, expect_key, name))))
    check_recipe(config or {}, recipe)
    need = (
        estimate(config, recipe, list(names))
        if config
        else Estimate(parameters=0, rss_bytes={}, weights_bytes=0, disk_bytes=0)
    )
    steps = [Step(stage="fetch", state="cached", rss_bytes=0)]
    for label, stage, key in keys:
        settled_by = [(stage, key), *([("expect", expect_key)] if stage == "original" else [])]
        cached = any(cache.find(*one) for one in settled_by)
        needed = need.rss_bytes.get(label.removesuffix(" export"), 0)
        steps.append(Step(stage=label, state="cached" if cached else "will run", rss_bytes=needed))
    available = Machine.here().available_bytes
    short = [step.stage for step in steps if step.state == "will run" and step.rss_bytes > available]
    return Plan(
        model=request.model,
        slice=source.slice,
        steps=tuple(steps),
        parameters=need.parameters,
        weights_bytes=need.weights_bytes,
        disk_bytes=need.disk_bytes,
        available_bytes=available,
        note=" ".join(filter(None, (text_only(left_out(source)), source_grid(source, recipe), short_note(short)))),
        left_out=left_out(source),
        curve=_curve(cache, load_key),
        context_tokens=options.context_tokens if config else 0,
        kv_cache_bytes={name: kv_cache_bytes(config, options, name) for name in names} if config else {},
    )


def short_note(stages: list[str]) -> str:
    """A warning about stages that will not fit into memory."""
    return f"Too little memory for: {', '.join(stages)}." if stages else ""


def _options(request: Request, cache: Cache, load_key: str, config: Mapping[str, object] | None) -> ExportOptions:
    """The request's options; those of an encoder are known once it was loaded, an encoder-decoder's by its config."""
    if entry := cache.find("load", load_key):
        return settled(request, from_json(dict(entry.value), Reference).directory).options
    own = request.own_context and is_seq2seq(config or {})
    return own_options(request.options, config or {}) if own else request.options


def _curve(cache: Cache, load_key: str) -> tuple[Mixture, ...]:
    """The size-quality curve, where an earlier build has measured it."""
    narrow = stage_key("quantize", quantize_inputs(load_key, RECIPES["int4-small"]))
    entry = cache.find("sensitivity", stage_key("sensitivity", sensitivity_inputs(load_key, narrow)))
    return mixtures(from_json(entry.value, Curve)) if entry else ()


def _config(cache: Cache, load_key: str, source: Source) -> dict[str, object] | None:
    """config.json as loaded before, or as it lies in the source (a GGUF file has none), of the slice that is taken.

    Raises UnsupportedModel and UsageError as loading a slice does.
    """
    if entry := cache.find("load", load_key):
        return dict(read_json(from_json(dict(entry.value), Reference).directory / "config.json"))
    path = source.directory / "config.json"
    if not path.is_file():
        if source.slice:
            check_nested(families.by_gguf_architecture(read_header(gguf_path(source)).architecture).model_type)
        return None
    config = dict(read_json(path))
    check_plain(source, config)
    known = config.get("model_type") in families.names()
    rewrite = families.get(config["model_type"]).rewrite if known else None
    config = config if rewrite is None else rewrite(config)
    return sliced_config(config, parse_slice(source.slice)) if source.slice else config
