"""Who built a package, from what, how: a SLSA provenance 1.0 statement about a finished package.

Made from the manifest and from what the CI says of itself (GitHub's environment variables). The statement is not signed
here: in CI, ``actions/attest`` or ``cosign attest-blob`` do that; a package's signature says who vouches for its bytes.
Source: https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .verify import Verified

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://github.com/kobako/kobako/blob/main/docs/trust.md#provenance"
LOCAL_BUILDER = "https://github.com/kobako/kobako/blob/main/docs/trust.md#local-builder"


def provenance(done: Verified, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The statement about a verified package, as a JSON value."""
    manifest = done.manifest
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(done.files.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "model": manifest["model"]["origin"],
                    "revision": manifest["model"]["revision"],
                    **({"adapter": dict(manifest["model"]["adapter"])} if "adapter" in manifest["model"] else {}),
                    **({"slice": manifest["model"]["slice"]} if "slice" in manifest["model"] else {}),
                    "recipe": dict(manifest["recipe"]),
                    "targets": list(manifest["targets"]),
                    "context_tokens": manifest["context_tokens"],
                    "kv_cache": manifest.get("kv_cache", "float"),
                    "tasks": [task["name"] for task in manifest["tasks"]],
                },
                "internalParameters": {"kobako": manifest["kobako_version"], "runtimes": _runtimes(manifest)},
                "resolvedDependencies": [*_model_files(manifest), *_repository(environment)],
            },
            "runDetails": {
                "builder": {"id": _builder(environment), "version": {"kobako": str(manifest["kobako_version"])}},
                "metadata": {"invocationId": _invocation(environment) or f"build:{manifest['build_id']}"},
            },
        },
    }


def _runtimes(manifest: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for target in manifest["targets"].values():
        found |= target["needs"]["runtimes"]
    return found


def _model_files(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """With the address of each: those in the folder ``adapter`` came from another place."""
    model, found = manifest["model"], []
    for file in model["files"]:
        folder, _, rest = file["path"].partition("/")
        uri = f"{model['origin']}#{file['path']}"
        if folder == "adapter" and "adapter" in model:
            uri = f"{model['adapter']['origin']}#{rest}"
        found.append({"name": file["path"], "uri": uri, "digest": {"sha256": file["sha256"]}})
    return found


def _repository(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """The repository whose workflow ran, at its commit."""
    repository, commit = environment.get("GITHUB_REPOSITORY"), environment.get("GITHUB_SHA")
    if not (repository and commit):
        return []
    server = environment.get("GITHUB_SERVER_URL", "https://github.com")
    reference = environment.get("GITHUB_REF", "")
    uri = f"git+{server}/{repository}" + (f"@{reference}" if reference else "")
    return [{"uri": uri, "digest": {"gitCommit": commit}}]


def _builder(environment: Mapping[str, str]) -> str:
    workflow = environment.get("GITHUB_WORKFLOW_REF")
    return f"{environment.get('GITHUB_SERVER_URL', 'https://github.com')}/{workflow}" if workflow else LOCAL_BUILDER


def _invocation(environment: Mapping[str, str]) -> str:
    repository, run = environment.get("GITHUB_REPOSITORY"), environment.get("GITHUB_RUN_ID")
    if not (repository and run):
        return ""
    server, attempt = (
        environment.get("GITHUB_SERVER_URL", "https://github.com"),
        environment.get("GITHUB_RUN_ATTEMPT", "1"),
    )
    return f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}"


def write_provenance(done: Verified, out: Path) -> None:
    """Write the statement as JSON beside the package, never into it: its bytes are signed.

    Raises OutputError, NotEnoughDisk.
    """
    from .cache import disk_full_is_an_error
    from .codec import write_json
    from .place import unwritable_is_an_error

    temporary = out.with_name(f".{out.name}.partial")
    with unwritable_is_an_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with disk_full_is_an_error(out.parent):
            write_json(temporary, provenance(done))
            temporary.replace(out)
