"""Small packages with real manifests and real signatures, whose files a test chooses."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kobako.pipeline.errors import KobakoError
from kobako.pipeline.signature.trust import Trust, trust_key

NAME = "toy-int8"
SHARED = {"LICENSE": b"Do as you like.\n", "golden/golden.json": b"{}", "README.md": b"# toy\n"}


def noise(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that no compression shrinks and no other file shares."""
    return random.Random(seed).randbytes(size_bytes)


def target_files(seed: int = 0, size_bytes: int = 300_000) -> dict[str, dict[str, bytes]]:
    """What three targets hold; the tokenizer is the same in all."""
    tokenizer = noise(5_000, 77)
    return {
        "litert": {"litert/model.tflite": noise(size_bytes, seed + 1), "litert/tokenizer.json": tokenizer},
        "executorch": {"executorch/model.pte": noise(size_bytes, seed + 2), "executorch/tokenizer.json": tokenizer},
        "coreml": {
            "coreml/model.mlpackage/Data/weights/weight.bin": noise(size_bytes, seed + 3),
            "coreml/model.mlpackage/Manifest.json": b"{}",
            "coreml/tokenizer.json": tokenizer,
        },
    }


def make_package(
    out: Path,
    targets: Mapping[str, Mapping[str, bytes]] | None = None,
    shared: Mapping[str, bytes] = SHARED,
    **changes: Any,
) -> Path:
    """Write an unsigned package directory; `changes` go to the manifest."""
    chosen = target_files() if targets is None else targets
    for files in (shared, *chosen.values()):
        for path, content in files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_bytes(content)
    (out / "kobako.json").write_text(json.dumps(manifest(chosen, shared) | changes))
    return out


def task(name: str, *languages: str) -> dict[str, Any]:
    """A task as manifests hold it."""
    return {
        "name": name, "messages": [], "prompt": "{text}", "stop": [], "max_new_tokens": 8, "languages": list(languages),
    }  # fmt: skip


def entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"path": path, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in files.items()
    ]


def manifest(targets: Mapping[str, Mapping[str, bytes]], shared: Mapping[str, bytes]) -> dict[str, Any]:
    model = {
        "name": "toy",
        "origin": "hf://a/toy",
        "revision": "1",
        "model_type": "llama",
        "licence": "MIT",
        "files": [],
    }
    needs = {"ram_bytes": 1, "runtimes": {}}
    return {
        "format_version": "1.0", "name": NAME, "build_id": "0" * 32, "kobako_version": "0.1.0", "model": model,
        "recipe": {"name": "int8", "weight_bits": 8, "group_size": None, "embedding_bits": 8},
        "context_tokens": 64, "stop_ids": [2], "chat_template": None, "tasks": [], "proven": True,
        "targets": {
            name: {
                "files": entries(files), "activations": "float32", "needs": needs, "proven": True, "details": {},
            }
            for name, files in targets.items()
        },
        "files": entries(shared),
    }  # fmt: skip


class Signer:
    """A key pair, and the trust that believes it."""

    def __init__(self, directory: Path) -> None:
        from kobako.pipeline.sign import write_new_key

        directory.mkdir(parents=True, exist_ok=True)
        self.private = directory / "key.pem"
        self.public, _ = write_new_key(self.private, None)

    @property
    def trust(self) -> Trust:
        return trust_key(self.public)

    def sign(self, package: Path) -> Path:
        from kobako.pipeline.sign import load_key, sign

        sign(package, load_key(self.private, None, None, ()))
        return package


ANYBODY = Trust(unsigned="allow")


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def expected(package: Path, *targets: str) -> dict[str, bytes]:
    """What a pull of `targets` must leave."""
    others = {"litert", "executorch", "coreml"} - set(targets)
    return {path: content for path, content in contents(package).items() if path.partition("/")[0] not in others}


def leftovers(directory: Path) -> list[str]:
    """Hidden names beside packages: locks and workspaces that were not cleaned up."""
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("."))


def rewrite(package: Path, out: Path, changes: Mapping[str, bytes]) -> Path:
    """A copy of a package with other files and a fitting manifest, unsigned."""
    shutil.copytree(package, out)
    (out / "model.sig").unlink(missing_ok=True)
    value = json.loads((out / "kobako.json").read_text())
    for path, content in changes.items():
        (out / path).write_bytes(content)
        for entry in [*value["files"], *(file for target in value["targets"].values() for file in target["files"])]:
            if entry["path"] == path:
                entry.update(entries({path: content})[0])
    (out / "kobako.json").write_text(json.dumps(value))
    return out


class Watching:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.stages: list[str] = []

    def started(self, stage: str) -> None:
        self.stages.append(stage)

    def progress(self, stage: str, fraction: float, text: str) -> None:
        self.fractions.append(fraction)

    def finished(self, stage: str, seconds: float, cached: bool) -> None: ...
    def failed(self, stage: str, error: KobakoError) -> None: ...
