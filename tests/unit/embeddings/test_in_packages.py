"""A table in a package: once, for all targets that read it, and taken along for these only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kobako.pipeline.contracts import Exported
from kobako.pipeline.embeddings import TABLE_FILE, table_path, write_table
from kobako.pipeline.errors import BadArtifact, IntegrityError
from kobako.pipeline.manifest import check_files, exported_of, read_manifest
from kobako.pipeline.package import Contents, package
from kobako.pipeline.pull import PullRequest, pull
from kobako.pipeline.registry.roads import open_source
from kobako.pipeline.verify import verify

from tests.unit.embeddings.conftest import layout_of, values_of
from tests.unit.roads.packages import ANYBODY, Watching
from tests.unit.tiny_package import contents

LAYOUT = layout_of(rows=40)


@pytest.fixture
def made(tmp_path: Path) -> Contents:
    """What the package stage is given: executorch reads the table, litert does not."""
    given = contents(tmp_path / "work")
    reader, other = given.parts
    assert (reader.exported.target, other.exported.target) == ("executorch", "litert")
    write_table(reader.exported.directory / TABLE_FILE, LAYOUT, [values_of(LAYOUT)])
    return replace(given, parts=(replace(reader, exported=replace(reader.exported, table=TABLE_FILE)), other))


@pytest.fixture
def packed(made: Contents, tmp_path: Path) -> Path:
    return package(made, tmp_path / "package")


def test_it_lies_at_the_top_once_and_is_no_copy(made: Contents, packed: Path) -> None:
    manifest = read_manifest(packed)
    given = made.parts[0].exported.directory / TABLE_FILE
    assert (packed / TABLE_FILE).samefile(given)
    assert [entry["path"] for entry in manifest["files"]].count(TABLE_FILE) == 1
    assert manifest["targets"]["executorch"]["table"] == TABLE_FILE
    assert "table" not in manifest["targets"]["litert"]
    check_files(packed, manifest)
    assert table_path(exported_of(packed, manifest, "executorch")) == packed / TABLE_FILE
    assert table_path(exported_of(packed, manifest, "litert")) is None


def test_on_another_file_system_it_is_copied(made: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    packed = package(made, tmp_path / "package")
    given = made.parts[0].exported.directory / TABLE_FILE
    assert (packed / TABLE_FILE).read_bytes() == given.read_bytes()
    assert not (packed / TABLE_FILE).samefile(given)


def test_targets_that_do_not_read_it_do_without(packed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    (copy / TABLE_FILE).unlink()
    manifest = read_manifest(copy)
    check_files(copy, manifest, ["litert"])
    with pytest.raises(IntegrityError, match=f"{TABLE_FILE} is missing"):
        check_files(copy, manifest, ["executorch"])
    with pytest.raises(IntegrityError, match=f"{TABLE_FILE} is missing"):
        verify(copy, ANYBODY)
    shutil.rmtree(copy / "executorch")
    assert verify(copy, ANYBODY).targets == ("litert",)


def test_a_flipped_bit_is_seen_by_those_who_read_it(packed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    data = bytearray((copy / TABLE_FILE).read_bytes())
    data[-1] ^= 1
    (copy / TABLE_FILE).write_bytes(data)
    check_files(copy, read_manifest(copy), ["litert"])
    with pytest.raises(IntegrityError, match=f"{TABLE_FILE} in .* was changed or damaged"):
        check_files(copy, read_manifest(copy), ["executorch"])


@pytest.mark.parametrize(("target", "taken"), [("litert", False), ("executorch", True)])
def test_a_pull_takes_it_along_where_it_is_read(packed: Path, tmp_path: Path, target: str, taken: bool) -> None:
    from kobako.pipeline.publish import PublishRequest, publish
    from kobako.pipeline.registry.roads import open_destination

    place = str(tmp_path / "place")
    publish(PublishRequest(package=packed, trust=ANYBODY), open_destination(place), Watching())
    out = tmp_path / "pulled"
    pull(open_source(place), PullRequest(out=out, targets=(target,), trust=ANYBODY), Watching())
    assert (out / TABLE_FILE).exists() is taken
    assert verify(out, ANYBODY, [target]).targets == (target,)


def edited(packed: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((packed / "kobako.json").read_text())
    edit(manifest)
    (packed / "kobako.json").write_text(json.dumps(manifest))


def test_a_table_that_is_not_listed_is_refused(packed: Path) -> None:
    def drop(manifest: dict[str, Any]) -> None:
        manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != TABLE_FILE]

    edited(packed, drop)
    with pytest.raises(BadArtifact, match="which is not listed"):
        read_manifest(packed)


@pytest.mark.parametrize("name", ["../embeddings.safetensors", "litert/model.bin", 3])
def test_a_table_of_another_name_is_refused(packed: Path, name: object) -> None:
    def rename(manifest: dict[str, Any]) -> None:
        manifest["targets"]["executorch"]["table"] = name

    edited(packed, rename)
    with pytest.raises(BadArtifact, match="not a valid manifest"):
        read_manifest(packed)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    exported = Exported(
        target="coreml", directory=tmp_path / "p" / "coreml", files=(), activations="float16", context_tokens=64,
        table=TABLE_FILE,
    )  # fmt: skip
    with pytest.raises(BadArtifact, match="neither there nor one folder up"):
        table_path(exported)
