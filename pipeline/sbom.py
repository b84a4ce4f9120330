"""``sbom.cdx.json``: a CycloneDX 1.6 bill of materials with a model card (ML-BOM), for scanners.

It holds no time and no random number: the same build gives the same bytes. Only what is known is said; what a model was
trained on is not known. Source: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import importlib.metadata
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .codec import write_json
from .contracts import Source
from .licences import judge
from .version import __version__

SBOM_FILE = "sbom.cdx.json"
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "safetensors")
TASKS: Mapping[str, str] = {"summarize": "summarization", "translate": "translation", "embed": "feature-extraction"}


def write_sbom(data: Mapping[str, Any], manifest: Mapping[str, Any], source: Source, work: Path) -> None:
    """Write the bill of materials of a package.

    Args:
        data: what the report page shows (`kobako.pipeline.package.report_data`).
        manifest: the package's manifest, for names and digests of the files.
    """
    write_json(work / SBOM_FILE, sbom(data, manifest, source))


def sbom(data: Mapping[str, Any], manifest: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """The bill of materials as a JSON value."""
    parts = _parts(source)
    versions = _versions(data)
    targets = list(data["targets"])
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(manifest['build_id'])}",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {
                "components": [_application("kobako", __version__), *(_application(*i) for i in versions.items())]
            },
            "component": _package(data, manifest, source),
        },
        "components": [*(_source(*part) for part in parts.items()), *(_target(name, manifest) for name in targets)],
        "dependencies": [
            {"ref": "package", "dependsOn": [*parts, *(f"target-{name}" for name in targets)]},
            *({"ref": f"target-{name}", "dependsOn": list(parts)} for name in targets),
            *({"ref": name, "dependsOn": []} for name in parts),
        ],
    }


def _parts(source: Source) -> dict[str, Source]:
    """What the weights were made of: the model, and the adapter that was merged into it."""
    return {"model": source} | ({"adapter": source.adapter} if source.adapter else {})


def _versions(data: Mapping[str, Any]) -> dict[str, str]:
    """Versions of the libraries that made the package: ours, and those of each target's vendor."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for target in data["targets"].values():
        found |= target["vendor_versions"]
    return dict(sorted(found.items()))


def _application(name: str, version: str) -> dict[str, Any]:
    return {"type": "application", "name": name, "version": version, "purl": f"pkg:pypi/{quote(name)}@{quote(version)}"}


def _package(data: Mapping[str, Any], manifest: Mapping[str, Any], source: Source) -> dict[str, Any]:
    recipe = data["recipe"]
    merged = (
        f"adapter {source.adapter.name} ({source.adapter.origin}) merged" if source.adapter else "not trained further"
    )
    taken = f"nested model {source.slice} taken out of the whole; " if source.slice else ""
    return {
        "type": "machine-learning-model",
        "bom-ref": "package",
        "name": manifest["name"],
        "version": manifest["build_id"],
        "description": f"{data['name']} quantized to {recipe['name']} for {', '.join(data['targets'])}",
        "licenses": _licenses(*_parts(source).values()),
        "pedigree": {
            "ancestors": [{"type": "machine-learning-model", "name": data["name"]}],
            "notes": f"Weights quantized by kobako {__version__}: recipe {recipe['name']}; {taken}{merged}.",
        },
        "modelCard": _model_card(data),
        "properties": [
            *({"name": f"kobako:recipe:{key}", "value": str(value)} for key, value in recipe.items()),
            {"name": "kobako:context_tokens", "value": str(data["context_tokens"])},
            {"name": "kobako:proven", "value": str(manifest["proven"]).lower()},
        ],
    }


def _model_card(data: Mapping[str, Any]) -> dict[str, Any]:
    tasks = list(data["tasks"])
    metrics = [metric for name, target in data["targets"].items() for metric in _metrics(name, target)]
    return {
        "modelParameters": {
            "task": TASKS.get(tasks[0], "text-generation") if len(tasks) == 1 else "text-generation",
            "architectureFamily": "transformer",
            "modelArchitecture": data["model_type"],
            "datasets": [
                {
                    "type": "dataset",
                    "name": "kobako calibration and proof text",
                    "description": "Text that activations were measured on and the proof was run on. "
                    "What the model itself was trained on is not known here: see its own card.",
                    "classification": "public",
                }
            ],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {
            "technicalLimitations": [
                *(f"{name}: {why}" for name, why in data["failures"].items()),
                *(
                    f"{name} does not pass its proof"
                    for name, t in data["targets"].items()
                    if not t["report"]["passed"]
                ),
                "Quantized: answers differ from the original model's by what the metrics tell.",
            ]
        },
    }


def _metrics(name: str, target: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every check of a target's proof, and its speed."""
    report = target["report"]
    found = [
        {"type": f"{check['part']} {check['name']}", "value": str(check["value"]), "slice": name}
        for check in report["checks"]
    ]
    if speed := target["measurement"]:
        for key in ("prefill_tokens_per_s", "decode_tokens_per_s", "peak_rss_bytes"):
            if speed[key] is None:  # an encoder decodes nothing
                continue
            found.append({"type": key, "value": str(speed[key]), "slice": f"{name}, {speed['engine']}, build machine"})
    return found


def _source(name: str, source: Source) -> dict[str, Any]:
    folder = "adapter/" if name == "adapter" else ""
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": name,
        "name": source.name,
        "version": source.revision,
        "licenses": _licenses(source),
        "components": [
            {
                "type": "file",
                "bom-ref": f"{name}/{file.path}",
                "name": folder + file.path,
                "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            }
            for file in source.files
        ],
        "properties": [{"name": "kobako:origin", "value": source.origin}],
    }
    if purl := _purl(source):
        component["purl"] = purl
    return component


def _purl(source: Source) -> str:
    """The package URL of where the model came from; empty for a directory."""
    if hub := re.fullmatch(r"hf://([^@]+)(@.*)?", source.origin):
        return f"pkg:huggingface/{quote(hub[1], safe='/')}@{quote(source.revision)}"
    if pypi := re.match(r"pypi:([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)$", source.origin):
        return f"pkg:pypi/{pypi[1]}@{pypi[2]}"
    return ""


def _target(name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"target-{name}",
        "name": f"{manifest['name']}/{name}",
        "version": manifest["build_id"],
        "components": [
            {
                "type": "file",
                "bom-ref": entry["path"],
                "name": entry["path"],
                "hashes": [{"alg": "SHA-256", "content": entry["sha256"]}],
            }
            for entry in manifest["targets"][name]["files"]
        ],
    }


def _licenses(*sources: Source) -> list[dict[str, Any]]:
    """Each licence once; all of them hold."""
    judged = {found.licence: found.spdx for found in map(judge, sources)}
    return [{"license": {"id": licence} if spdx else {"name": licence}} for licence, spdx in judged.items()]
