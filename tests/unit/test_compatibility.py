"""Packages of every release verify and read; what a newer one adds is kept, what it breaks is refused with advice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kobako.pipeline.codec import from_json
from kobako.pipeline.contracts import RECIPES, Recipe, Task
from kobako.pipeline.embeddings import open_table, table_path
from kobako.pipeline.encoder.standard import read_standard
from kobako.pipeline.errors import BadArtifact, IntegrityError, Untrusted
from kobako.pipeline.heads import Head
from kobako.pipeline.manifest import SCHEMA_FILE, exported_of, read_manifest
from kobako.pipeline.package import package
from kobako.pipeline.signature.statement import Statement, encode_statement, parse_statement
from kobako.pipeline.signature.trust import trust_key
from kobako.pipeline.standard import from_golden
from kobako.pipeline.tokens import ShippedTokenizer
from kobako.pipeline.verify import Verified, verify
from kobako.pipeline.version import __version__
from tiny_package import contents

KEPT = Path(__file__).parent.parent / "fixtures" / "packages"
RELEASES = sorted(path.name for path in KEPT.iterdir() if path.is_dir())
PACKAGES = sorted(path.parent.relative_to(KEPT).as_posix() for path in KEPT.glob("*/*/kobako.json"))


def test_this_version_is_kept() -> None:
    assert __version__ in RELEASES, "run scripts/keep-package and commit what it writes"


def verified(package: str) -> Verified:
    home = KEPT / package
    return verify(home, trust_key(home.parent / "signer.pub"))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_of_every_release_verify_and_read(package: str) -> None:
    home, done = KEPT / package, verified(package)
    assert done.signer is not None
    assert done.targets == ("executorch", "litert")
    assert package.endswith(f"-{from_json(done.manifest['recipe'], Recipe).name}")
    assert [from_json(task, Task).name for task in done.manifest["tasks"]] in (["chat"], ["embed"])
    for target in done.targets:
        assert exported_of(home, done.manifest, target).files == ("model.bin", "tokenizer.json")
    tokenizer = ShippedTokenizer(home / "tokenizer")
    assert tokenizer.render([{"role": "user", "content": "w5 w6"}]) == "w5 w6"


@pytest.mark.parametrize("package", [name for name in PACKAGES if "/toy-int" in name])
def test_kept_decoders_can_still_be_proven(package: str) -> None:
    recipe = from_json(verified(package).manifest["recipe"], Recipe)
    assert from_golden(KEPT / package / "golden", recipe, "float32").windows.shape == (1, 2)


@pytest.mark.parametrize("package", [name for name in PACKAGES if name.endswith("/toy-int4")])
def test_what_a_decoder_may_have_is_read(package: str) -> None:
    home, manifest = KEPT / package, verified(package).manifest
    recipe = from_json(manifest["recipe"], Recipe)
    assert (len(recipe.wide), recipe.loss_limit_nats, recipe.calibration_sha256) == (1, 0.04, "7a" * 32)
    assert manifest["model"]["adapter"]["licence"] == "MIT"
    fed = exported_of(home, manifest, "executorch")
    path = table_path(fed)
    assert path is not None
    assert open_table(path, check_digest=True).rows([63]).shape == (1, 2, 4)
    assert exported_of(home, manifest, "litert").table is None


@pytest.mark.parametrize("package", [name for name in PACKAGES if "/toy-embeds" in name])
def test_kept_encoders_can_still_be_proven(package: str) -> None:
    home, manifest = KEPT / package, verified(package).manifest
    assert from_json(manifest["head"], Head).normalize
    assert exported_of(home, manifest, "litert").kind == "encoder"
    assert read_standard(home / "golden", RECIPES["int8"], "float32").ids == [[5, 6]]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_kept_package_that_changes_is_noticed(package: str, tmp_path: Path) -> None:
    home = Path(shutil.copytree(KEPT / package, tmp_path / Path(package).name))
    data = json.loads((home / "kobako.json").read_text())
    (home / "kobako.json").write_text(json.dumps(data))  # the same values, other bytes
    with pytest.raises(IntegrityError):
        verify(home, trust_key((KEPT / package).parent / "signer.pub"))


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    manifest = json.loads((KEPT / RELEASES[-1] / "toy-int8" / "kobako.json").read_text())
    change(manifest)
    (tmp_path / "kobako.json").write_text(json.dumps(manifest))
    return tmp_path


def test_fields_of_a_newer_minor_version_are_kept(tmp_path: Path) -> None:
    def newer(manifest: dict[str, Any]) -> None:
        manifest |= {"format_version": "1.9", "invented_later": {"a": [1]}}
        manifest["tasks"][0]["voice"] = "calm"
        manifest["targets"]["litert"]["files"][0]["compression"] = "none"
        manifest["recipe"]["outliers"] = 3

    read = read_manifest(changed(tmp_path, newer))
    assert read["invented_later"] == {"a": [1]}
    assert read["tasks"][0]["voice"] == "calm"
    assert from_json(read["tasks"][0], Task).name == "chat"
    assert from_json(read["recipe"], Recipe).name == "int8"


@pytest.mark.parametrize(
    ("version", "advice"), [("2.0", "Upgrade kobako"), ("99.1", "Upgrade kobako"), ("0.1", "older kobako")]
)
def test_another_major_version_is_refused_with_advice(tmp_path: Path, version: str, advice: str) -> None:
    home = changed(tmp_path, lambda manifest: manifest.update({"format_version": version, "targets": "something new"}))
    with pytest.raises(BadArtifact, match=advice):
        read_manifest(home)


def test_a_newer_minor_version_that_does_not_fit_says_so(tmp_path: Path) -> None:
    def newer(manifest: dict[str, Any]) -> None:
        manifest["format_version"] = "1.9"
        manifest["recipe"]["weight_bits"] = 2

    with pytest.raises(BadArtifact, match=r"format 1\.9: a newer kobako may read it"):
        read_manifest(changed(tmp_path, newer))


@pytest.mark.parametrize("version", ["", "1", "1.x", "1.0.0", "-1.0", "1.0\n", None, 1.0, "9" * 5000 + ".0"])
def test_a_version_that_is_none_is_refused(tmp_path: Path, version: object) -> None:
    with pytest.raises(BadArtifact):
        read_manifest(changed(tmp_path, lambda manifest: manifest.update({"format_version": version})))


@pytest.mark.parametrize(
    "path",
    ["litert/../x", "/etc/passwd", "litert/a\nb", "litert/\x1b[2J", "executorch/model.bin", "litert/con", "model.sig/"],
)
def test_names_that_lie_are_refused(tmp_path: Path, path: str) -> None:
    def lie(manifest: dict[str, Any]) -> None:
        manifest["targets"]["litert"]["files"][0]["path"] = path

    with pytest.raises(BadArtifact):
        read_manifest(changed(tmp_path, lie))


@pytest.mark.parametrize(
    "path", ["litert/MODEL.BIN", "litert/Model.bin", "litert/model.bin/part", "litert/tokenizer.json"]
)
def test_files_that_some_file_systems_take_for_one_are_refused(tmp_path: Path, path: str) -> None:
    """What is read here is also what a build checks before it writes a manifest."""

    def double(manifest: dict[str, Any]) -> None:
        files = manifest["targets"]["litert"]["files"]
        files.append(files[0] | {"path": path})

    with pytest.raises(BadArtifact, match=r"capitals only|stands in it twice"):
        read_manifest(changed(tmp_path, double))


def test_no_build_writes_files_that_some_file_systems_take_for_one(tmp_path: Path) -> None:
    made = contents(tmp_path / "work")
    first = made.parts[0].exported
    (first.directory / "MODEL.BIN").write_bytes(b"other")
    part = replace(made.parts[0], exported=replace(first, files=(*first.files, "MODEL.BIN")))
    with pytest.raises(BadArtifact, match="capitals only"):
        package(replace(made, parts=(part, *made.parts[1:])), tmp_path / "toy-int8")
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_no_signature_over_such_files_is_believed() -> None:
    statement = Statement(name="toy", digests={"litert/a": "0" * 64, "LiteRT/b": "1" * 64})
    with pytest.raises(Untrusted, match="capitals only"):
        parse_statement(encode_statement(statement, ()))


def test_the_schema_is_a_schema() -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text()))


@pytest.mark.parametrize("arguments", [("inspect",), ("inspect", "--json"), ("verify", "--allow-unsigned")])
def test_a_hostile_manifest_cannot_steer_a_terminal(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Escape sequences, lone surrogates and marks of direction, in values, keys and names of files."""

    def lie(manifest: dict[str, Any]) -> None:
        manifest["model"]["name"] = "\x1b]0;owned\x07\ud800\u202e\x9b2J"
        manifest["\x1b[2J"] = {"\x1b[31m\udfff": ["\x1b[1A"]}
        if arguments[0] == "verify":
            manifest["targets"]["litert"]["files"][0]["path"] = "litert/\x1b[2J\ud800"

    home = changed(tmp_path, lie)
    command = [str(Path(sys.executable).parent / "kobako"), arguments[0], str(home), *arguments[1:]]
    shown = subprocess.run(command, capture_output=True, check=False, timeout=60)
    said = (shown.stdout + shown.stderr).decode()
    assert shown.returncode == (15 if arguments[0] == "verify" else 0), said
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said)
    if "--json" in arguments:
        assert json.loads(shown.stdout)["model"]["name"].startswith("\x1b]0;owned")
