"""What travels with the weights: bill of materials, licence, notices; and the gate in front of a build."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kobako.pipeline import licences
from kobako.pipeline.contracts import Source
from kobako.pipeline.errors import LicenceRefused
from kobako.pipeline.licences import check_licence, judge, write_legal
from kobako.pipeline.manifest import read_manifest
from tiny_package import LICENCE_TEXT, NOTICE_TEXT, source, write_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sbom")
    return write_package(home / "work", home / "toy-int8")


@pytest.fixture(scope="module")
def bom(package: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((package / "sbom.cdx.json").read_text())
    return found


def problems(bom: dict[str, Any]) -> object:
    """What the official CycloneDX 1.6 schema, as OWASP's own library ships it, says; None when all is well."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom))


def test_valid_by_the_official_schema(bom: dict[str, Any]) -> None:
    assert problems(bom) is None
    assert problems(bom | {"bomFormat": "SPDX"}) is not None  # the validator does look
    broken = json.loads(json.dumps(bom))
    broken["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"] = 1.0
    assert problems(broken) is not None


def test_says_what_is_inside(bom: dict[str, Any], package: Path) -> None:
    manifest = read_manifest(package)
    card = bom["metadata"]["component"]["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "fidelity decode KL", "value": "1.0e-06 nats", "slice": "litert"} in metrics
    assert card["modelParameters"]["modelArchitecture"] == "llama"
    model = next(component for component in bom["components"] if component["bom-ref"] == "model")
    assert model["version"] == manifest["model"]["revision"]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["purl"] == f"pkg:huggingface/example/toy@{'4f' * 20}"
    listed = {file["name"]: file["hashes"][0]["content"] for c in bom["components"] for file in c["components"]}
    for target in manifest["targets"].values():
        for file in target["files"]:
            assert listed[file["path"]] == file["sha256"]
    tools = {tool["name"]: tool["version"] for tool in bom["metadata"]["tools"]["components"]}
    assert {"kobako", "numpy", "executorch", "litert"} <= tools.keys()


def test_the_manifest_vouches_for_it(package: Path) -> None:
    paths = {entry["path"] for entry in read_manifest(package)["files"]}
    assert {"sbom.cdx.json", "LICENSE", "NOTICE"} <= paths


def test_the_same_build_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    again = write_package(tmp_path / "work", tmp_path / "toy-int8")
    for path in sorted(p.relative_to(package) for p in package.rglob("*") if p.is_file()):
        assert (again / path).read_bytes() == (package / path).read_bytes(), path


def test_files_can_be_read_by_a_web_server(package: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in package.rglob("*") if path.is_file()} == {0o644}


@pytest.mark.parametrize("licence", ["gemma", "llama3.2", "unknown", "My Licence 1.0 <b>"])
def test_a_licence_that_spdx_does_not_know_is_named(tmp_path: Path, licence: str) -> None:
    made = write_package(tmp_path / "work", tmp_path / "toy", source=source(tmp_path / "source", licence))
    bom = json.loads((made / "sbom.cdx.json").read_text())
    assert problems(bom) is None
    assert bom["metadata"]["component"]["licenses"] == [{"license": {"name": licence}}]
    required = licences.REQUIRED_NOTICES.get(licence, "")
    assert required in (made / "NOTICE").read_text()


def test_the_schema_knows_every_identifier_we_call_spdx(bom: dict[str, Any]) -> None:
    for licence in licences.SPDX:
        changed = bom | {"components": [{"type": "library", "name": "x", "licenses": [{"license": {"id": licence}}]}]}
        assert problems(changed) is None, licence


# --- licences -------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Source:
    return source(tmp_path / "source")


def test_licence_and_notices_travel(model: Source, tmp_path: Path) -> None:
    write_legal(model, "int8", tmp_path)
    assert (tmp_path / "LICENSE").read_text() == LICENCE_TEXT
    notice = (tmp_path / "NOTICE").read_text()
    assert NOTICE_TEXT in notice
    assert "The weights were changed" in notice
    assert model.revision in notice


def test_without_a_text_the_package_says_so(model: Source, tmp_path: Path) -> None:
    write_legal(replace(model, files=()), "int8", tmp_path)
    said = (tmp_path / "LICENSE").read_text()
    assert "without a licence text" in said
    assert "https://spdx.org/licenses/Apache-2.0.html" in said
    assert (tmp_path / "NOTICE").is_file()


@pytest.mark.parametrize("name", ["LICENSE.txt", "License", "LICENCE.md", "COPYING"])
def test_there_is_always_a_file_called_license(model: Source, tmp_path: Path, name: str) -> None:
    (model.directory / "LICENSE").rename(model.directory / name)
    write_legal(replace(model, files=(replace(model.files[0], path=name),)), "int8", tmp_path)
    assert (tmp_path / "LICENSE").read_text() == LICENCE_TEXT
    assert len({path.name.casefold() for path in tmp_path.iterdir()}) == len(list(tmp_path.iterdir()))


def test_several_licence_texts_are_all_named(model: Source, tmp_path: Path) -> None:
    names = ("LICENSE-APACHE", "LICENSE-MIT")
    for name in names:
        (model.directory / name).write_text(name)
    write_legal(replace(model, files=tuple(replace(model.files[0], path=name) for name in names)), "int8", tmp_path)
    said = (tmp_path / "LICENSE").read_text()
    assert all(name in said for name in names)


def test_a_permissive_licence_passes_every_policy(model: Source) -> None:
    for policy in licences.POLICIES:
        assert check_licence(model, policy) == ()
    assert check_licence(replace(model, licence="apache-2.0"), "refuse") == ()


@pytest.mark.parametrize(
    ("licence", "word"),
    [
        ("gemma", "terms of its own"),
        ("CC-BY-NC-4.0", "commercial"),
        ("GPL-3.0-only", "shared alike"),
        ("unknown", "knows"),
    ],
)
def test_others_are_refused_warned_about_or_allowed(model: Source, licence: str, word: str) -> None:
    other = replace(model, licence=licence)
    with pytest.raises(LicenceRefused, match=word):
        check_licence(other, "refuse")
    assert word in check_licence(other, "warn")[0]
    assert check_licence(other, "allow") == ()


def test_a_missing_licence_text_is_an_objection(model: Source) -> None:
    assert judge(replace(model, files=())).objections == ("the model came without a licence text",)


# --- provenance -----------------------------------------------------------------------------------------------------


def test_provenance_names_the_files_the_model_and_the_ci_run(package: Path) -> None:
    from kobako.pipeline.provenance import provenance
    from kobako.pipeline.signature.trust import Trust
    from kobako.pipeline.verify import verify

    done = verify(package, Trust(unsigned="allow"))
    ci = {
        "GITHUB_REPOSITORY": "you/app", "GITHUB_SHA": "c" * 40, "GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "2",
        "GITHUB_WORKFLOW_REF": "you/app/.github/workflows/build.yml@refs/heads/main", "GITHUB_REF": "refs/heads/main",
        "GITHUB_TOKEN": "ghs_secret",
    }  # fmt: skip
    statement = provenance(done, ci)
    assert {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]} == dict(done.files)
    definition, details = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert definition["externalParameters"]["revision"] == done.manifest["model"]["revision"]
    assert {"uri": "git+https://github.com/you/app@refs/heads/main", "digest": {"gitCommit": "c" * 40}} in definition[
        "resolvedDependencies"
    ]
    assert details["builder"]["id"] == "https://github.com/you/app/.github/workflows/build.yml@refs/heads/main"
    assert details["metadata"]["invocationId"].endswith("/you/app/actions/runs/7/attempts/2")
    assert "ghs_secret" not in json.dumps(statement)
    assert "local-builder" in provenance(done, {})["predicate"]["runDetails"]["builder"]["id"]


def adapted_by(tmp_path: Path, licence: str) -> Source:
    home = tmp_path / "adapter"
    adapter = replace(source(home), name="french", origin="hf://example/french", licence=licence, revision="5a" * 20)
    (home / "LICENSE").write_text("The adapter's licence.\n")
    (home / "NOTICE").write_text("Trained by somebody else.\n")
    return replace(source(tmp_path / "model"), adapter=adapter)


def test_an_adapter_is_named_wherever_the_model_is(tmp_path: Path) -> None:
    from kobako.pipeline.sbom import sbom

    adapted = adapted_by(tmp_path, "CC-BY-NC-4.0")
    adapter = adapted.adapter
    assert adapter is not None
    assert any("adapter french" in words and "commercial" in words for words in check_licence(adapted, "warn"))
    with pytest.raises(LicenceRefused, match="adapter french"):
        check_licence(adapted, "refuse")
    (tmp_path / "out").mkdir()
    write_legal(adapted, "int8", tmp_path / "out")
    assert "adapter french\nfrom hf://example/french" in (tmp_path / "out" / "NOTICE").read_text()
    package = write_package(tmp_path / "work", tmp_path / "toy-int8")
    data, manifest = json.loads((package / "report.json").read_text()), read_manifest(package)
    bom = sbom(data, manifest, adapted)
    assert problems(bom) is None
    assert "adapter french (hf://example/french) merged" in bom["metadata"]["component"]["pedigree"]["notes"]
    part = next(component for component in bom["components"] if component["bom-ref"] == "adapter")
    assert {f"adapter/{file.path}" for file in adapter.files} == {file["name"] for file in part["components"]}
    assert part["purl"] == f"pkg:huggingface/example/french@{'5a' * 20}"
    assert part["licenses"] == [{"license": {"id": "CC-BY-NC-4.0"}}]
    both = [{"license": {"id": "Apache-2.0"}}, {"license": {"id": "CC-BY-NC-4.0"}}]
    assert bom["metadata"]["component"]["licenses"] == both
    assert all("adapter" in entry["dependsOn"] for entry in bom["dependencies"] if entry["ref"].startswith("target-"))


def test_a_package_with_an_adapter_carries_and_states_both_licences(tmp_path: Path) -> None:
    """What the whole package stage writes, the manifest over all of it."""
    made = write_package(tmp_path / "work", tmp_path / "toy", source=adapted_by(tmp_path, "llama3.2"))
    assert (made / "LICENSE").read_text() == LICENCE_TEXT
    assert (made / "ADAPTER-LICENSE").read_text() == "The adapter's licence.\n"
    notice = (made / "NOTICE").read_text()
    for words in (
        NOTICE_TEXT,
        "Trained by somebody else.",
        licences.REQUIRED_NOTICES["llama3.2"],
        "licences of the model",
    ):
        assert words in notice
    manifest = read_manifest(made)
    assert {"LICENSE", "ADAPTER-LICENSE", "NOTICE"} <= {entry["path"] for entry in manifest["files"]}
    assert manifest["model"]["licence"] == "Apache-2.0"
    assert manifest["model"]["adapter"]["licence"] == "llama3.2"
    bom = json.loads((made / "sbom.cdx.json").read_text())
    assert problems(bom) is None
    assert bom["metadata"]["component"]["licenses"] == [
        {"license": {"id": "Apache-2.0"}}, {"license": {"name": "llama3.2"}},
    ]  # fmt: skip
    card = (made / "README.md").read_text()
    assert 'license: "other"' in card
    assert 'license_name: "apache-2.0-and-llama3.2"' in card
    assert "french from hf://example/french" in card
    assert "french from hf://example/french" in (made / "report.html").read_text()


def test_an_adapter_without_a_text_says_so(tmp_path: Path) -> None:
    adapted = adapted_by(tmp_path, "MIT")
    assert adapted.adapter is not None
    write_legal(replace(adapted, adapter=replace(adapted.adapter, files=())), "int8", tmp_path)
    assert "The adapter came without a licence text" in (tmp_path / "ADAPTER-LICENSE").read_text()
    assert (tmp_path / "LICENSE").read_text() == LICENCE_TEXT


def test_provenance_tells_where_the_adapters_files_came_from(tmp_path: Path) -> None:
    from kobako.pipeline.provenance import provenance
    from kobako.pipeline.signature.trust import Trust
    from kobako.pipeline.verify import verify

    made = write_package(tmp_path / "work", tmp_path / "toy", source=adapted_by(tmp_path, "MIT"))
    definition = provenance(verify(made, Trust(unsigned="allow")), {})["predicate"]["buildDefinition"]
    uris = {file["uri"] for file in definition["resolvedDependencies"]}
    assert {"hf://example/french#LICENSE", "hf://example/toy#LICENSE"} <= uris
    assert definition["externalParameters"]["adapter"]["origin"] == "hf://example/french"
