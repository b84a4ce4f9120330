"""Proven artifacts → Package: one directory, complete or absent.

The package is assembled beside its destination under a temporary name and renamed. An older package of the same model
is replaced; anything else that stands there is left alone and reported.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import families
from .codec import read_json, to_json, write_json
from .contracts import Expectations, Exported, ExportOptions, KvCache, Measurement, Quantized, Report, Source, Task
from .embeddings import link_table
from .errors import BadArtifact, OutputError, ProofFailed
from .heads import find_head
from .kvcache import kv_cache_bytes
from .leftout import left_out
from .licences import write_legal
from .manifest import FORMAT_VERSION, MANIFEST_FILE, check_manifest, file_entries, read_manifest
from .mixture import Mixture
from .place import scratch_beside, sweep, take_place
from .sbom import SBOM_FILE, write_sbom
from .standard import write_golden
from .tokens import ShippedTokenizer, stop_ids


@dataclass(frozen=True, kw_only=True)
class Proven:
    """One target's part of a package; `export_key`: the cache's key of the artifact."""

    title: str
    exported: Exported
    export_key: str
    report: Report
    measurement: Measurement | None
    build_seconds: float
    peak_rss_bytes: int
    vendor_versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Everything a package is made of.

    Attributes:
        failures: targets that could not be made, and why.
        curve: the mixtures that a goal was chosen from; empty without a goal.
    """

    build_id: str
    source: Source
    quantized: Quantized
    expectations: Expectations
    options: ExportOptions
    tasks: tuple[Task, ...]
    parts: tuple[Proven, ...]
    stages: tuple[Mapping[str, Any], ...]
    failures: Mapping[str, str]
    curve: tuple[Mixture, ...] = ()


def check_destination(out: Path, name: str) -> Mapping[str, Any] | None:
    """The manifest of the package that stands at `out`, or None when nothing does.

    Raises OutputError when something else is there, or when its parent cannot be written.
    """
    if out.exists():
        try:
            found = read_manifest(out)
        except BadArtifact as error:
            if out.is_dir() and not any(out.iterdir()):
                return None
            raise OutputError(
                f"{out} exists and is not a kobako package.", "Choose another --out, or remove it."
            ) from error
        if found["name"] != name:
            raise OutputError(f"{out} holds another package, {found['name']}.", "Choose another --out, or remove it.")
        return found
    parent = next(p for p in out.absolute().parents if p.exists())
    if not os.access(parent, os.W_OK) or not parent.is_dir():
        raise OutputError(f"{parent} cannot be written.", "Choose a writable directory with --out.")
    return None


def package(contents: Contents, out: Path, *, allow_failing: bool = False) -> Path:
    """Write the package directory `out` and return it.

    Raises ProofFailed when a report does not pass (unless `allow_failing`), OutputError, NotEnoughDisk.
    """
    from .cache import disk_full_is_an_error

    for part in contents.parts:
        if not part.report.passed and not allow_failing:
            raise proof_error(part.report)
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out)
    work = scratch_beside(out)
    try:
        with disk_full_is_an_error(out.parent):
            work.mkdir()
            _fill(contents, work)
            take_place(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def proof_error(report: Report) -> ProofFailed:
    """The error for a report that does not pass: every failing check, and what to try."""
    lines = "; ".join(
        f"{check.part} {check.name}: {check.value}, demanded {check.demand}"
        + (f" ({check.detail})" if check.detail else "")
        for check in report.failures
    )
    return ProofFailed(
        f"{report.target} {report.recipe} does not pass its proof: {lines}.",
        "Try another --recipe, leave the target out with --target, or keep it marked as failing with --allow-failing.",
    )


def _fill(contents: Contents, work: Path) -> None:
    for part in contents.parts:
        _copy_files(part.exported, work / part.exported.target)
        if part.exported.table is not None and not (work / part.exported.table).exists():
            link_table(part.exported.directory, work)
    shutil.copytree(contents.quantized.tokenizer_dir, work / "tokenizer")
    (work / "golden").mkdir()
    write_golden(contents.expectations, work / "golden")
    write_legal(contents.source, contents.quantized.recipe.name, work)
    data = report_data(contents)
    _write_reports(data, work)
    manifest = build_manifest(contents, work)
    write_sbom(data, manifest, contents.source, work)
    manifest["files"] = sorted([*manifest["files"], *file_entries(work, [SBOM_FILE])], key=lambda entry: entry["path"])
    check_manifest(manifest, work / MANIFEST_FILE)
    write_json(work / MANIFEST_FILE, manifest)
    for path in work.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes 0600, which a web server could not read


def _copy_files(exported: Exported, home: Path) -> None:
    for name in exported.files:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(exported.directory / name, home / name)


def _write_reports(data: Mapping[str, Any], work: Path) -> None:
    from .report import model_card, render_html

    write_json(work / "report.json", data)
    (work / "report.html").write_text(render_html(data), encoding="utf-8")
    (work / "README.md").write_text(model_card(data), encoding="utf-8")


def report_data(contents: Contents) -> dict[str, Any]:
    """Everything the report page shows, as JSON values."""
    return {
        "name": contents.quantized.name,
        "source": _without_directories(contents.source),
        "model_type": contents.quantized.model_type,
        "kind": families.get(contents.quantized.model_type).kind,
        "left_out": list(left_out(contents.source)),
        "head": to_json(find_head(contents.quantized.directory)),
        "recipe": to_json(contents.quantized.recipe),
        "context_tokens": contents.options.context_tokens,
        "kv_cache": contents.options.kv_cache,
        "tasks": [task.name for task in contents.tasks],
        "weights_bytes_by_part": bytes_by_part(contents.quantized.directory),
        "targets": {
            part.exported.target: {
                "title": part.title,
                "report": to_json(part.report) | {"passed": part.report.passed},
                "measurement": to_json(part.measurement) if part.measurement else None,
                "files": {name: (part.exported.directory / name).stat().st_size for name in part.exported.files},
                "build_seconds": part.build_seconds,
                "peak_rss_bytes": part.peak_rss_bytes,
                "vendor_versions": dict(part.vendor_versions),
                "details": dict(part.exported.details),
                "kv_cache_bytes": _cache_bytes(contents, part),
            }
            for part in contents.parts
        },
        "failures": dict(contents.failures),
        "curve": [to_json(point) for point in contents.curve],
        "stages": [dict(stage) for stage in contents.stages],
    }


def bytes_by_part(quantized_dir: Path) -> dict[str, int]:
    """Stored bytes of each part of the model, its per-layer table included."""
    from .embeddings import TABLE_FILE, open_table
    from .weights import stored_bytes_by_part

    parts = stored_bytes_by_part(quantized_dir)
    if (quantized_dir / TABLE_FILE).exists():
        parts["per-layer table"] = open_table(quantized_dir / TABLE_FILE).layout.data_bytes
    return parts


def _without_directories(source: Source) -> dict[str, Any]:
    """A source as other machines may know it."""
    left_out = ("directory", "adapter", *(() if source.slice else ("slice",)))
    facts = {key: value for key, value in to_json(source).items() if key not in left_out}
    return facts | ({"adapter": _without_directories(source.adapter)} if source.adapter else {})


def build_manifest(contents: Contents, work: Path) -> dict[str, Any]:
    """The manifest of what lies in `work`."""
    from .version import __version__

    quantized, recipe = contents.quantized, contents.quantized.recipe
    head = find_head(quantized.directory)
    mine = {part.exported.target for part in contents.parts}
    shared = sorted(
        str(p.relative_to(work)) for p in work.rglob("*") if p.is_file() and p.relative_to(work).parts[0] not in mine
    )
    return {
        "format_version": FORMAT_VERSION,
        "name": package_name(quantized.name, recipe.name, contents.options.kv_cache),
        "build_id": contents.build_id,
        "kobako_version": __version__,
        "model": {
            "name": quantized.name,
            "origin": contents.source.origin,
            "revision": contents.source.revision,
            "model_type": quantized.model_type,
            "licence": contents.source.licence,
            "files": [to_json(file) for file in contents.source.all_files],
            **({"left_out": list(parts)} if (parts := left_out(contents.source)) else {}),
            **_adapter_of(contents.source),
            **({"slice": contents.source.slice} if contents.source.slice else {}),
        },
        "recipe": to_json(recipe),
        "context_tokens": contents.options.context_tokens,
        "kv_cache": contents.options.kv_cache,
        "stop_ids": list(stop_ids(quantized.directory)),
        "chat_template": ShippedTokenizer(quantized.tokenizer_dir).chat_template,
        "tasks": [to_json(task) for task in contents.tasks],
        "kind": families.get(quantized.model_type).kind,
        **({"head": to_json(head)} if head else {}),
        "proven": all(part.report.passed for part in contents.parts),
        "targets": {
            part.exported.target: _target_entry(part, work, _cache_bytes(contents, part)) for part in contents.parts
        },
        "files": file_entries(work, shared),
    }


def _adapter_of(source: Source) -> dict[str, Any]:
    """Where the adapter came from, for the manifest."""
    if source.adapter is None:
        return {}
    return {"adapter": {name: getattr(source.adapter, name) for name in ("origin", "revision", "licence")}}


def package_name(model: str, recipe: str, kv_cache: KvCache = "float") -> str:
    """``MODEL-RECIPE``, or ``MODEL-RECIPE-kv8``: the package's name and its directory's default name."""
    return f"{model}-{recipe}" + ("-kv8" if kv_cache == "int8" else "")


def _cache_bytes(contents: Contents, part: Proven) -> int:
    config = read_json(contents.quantized.directory / "config.json")
    return kv_cache_bytes(config, contents.options, part.exported.target)


def _target_entry(part: Proven, work: Path, cache_bytes: int) -> dict[str, Any]:
    target = part.exported.target
    files = file_entries(work, [f"{target}/{name}" for name in part.exported.files])
    weights = sum(entry["size_bytes"] for entry in files)
    return {
        "files": files,
        "activations": part.exported.activations,
        "needs": {
            "ram_bytes": part.measurement.peak_rss_bytes if part.measurement else 2 * weights + cache_bytes,
            "kv_cache_bytes": cache_bytes,
            "runtimes": dict(part.vendor_versions),
        },
        "proven": part.report.passed,
        "details": dict(part.exported.details),
        **({} if part.exported.table is None else {"table": part.exported.table}),
        "figures": {check.part + " " + check.name: check.value for check in part.report.checks},
    }
