"""What a MODEL argument may be, and models that lie on this disk."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kobako.pipeline.contracts import no_progress
from kobako.pipeline.errors import NotFound, UnsupportedModel, UsageError
from kobako.pipeline.fetch import ModelRef, digests, fetch, parse
from kobako.pipeline.fetch.local import card_licence
from kobako.pipeline.fetch.refs import slug
from safetensors.numpy import save_file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smollm2-135m", ("catalogue", "smollm2-135m-instruct", None, "smollm2-135m-instruct")),
        ("SmolLM2-135M-Instruct", ("catalogue", "smollm2-135m-instruct", None, "smollm2-135m-instruct")),
        ("tinyllama@v1.0", ("catalogue", "tinyllama-1.1b-chat", "v1.0", "tinyllama-1.1b-chat")),
        ("org/Some_Model-1.5B", ("hub", "org/Some_Model-1.5B", None, "some-model-1.5b")),
        ("org/name@dev/x", ("hub", "org/name", "dev/x", "name")),
    ],
)
def test_names(text: str, expected: tuple[str, str, str | None, str]) -> None:
    ref = parse(text)
    assert (ref.kind, ref.text, ref.revision, ref.name) == expected


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "My Model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    gguf = tmp_path / "Some.Q4_0.gguf"
    gguf.write_bytes(b"GGUF")
    assert parse(str(model)) == ModelRef(kind="directory", text=str(model), revision=None, name="my-model")
    assert parse(str(gguf)) == ModelRef(kind="gguf", text=str(gguf), revision=None, name="some.q4-0")
    assert parse(str(tmp_path)).text == str(gguf)  # a directory with one .gguf means that file
    monkeypatch.chdir(tmp_path)
    assert parse("My Model").kind == "directory"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("smollm3", NotFound, "no model 'smollm3'"),
        ("./nothing", NotFound, "no file or directory"),
        ("org/nothing.gguf", NotFound, "no file or directory"),
        ("", UsageError, "no model was named"),
        ("a/b/c", NotFound, "no model"),
        ("gemini-nano", UnsupportedModel, "weights are closed"),
        ("google/Gemini-Nano", UnsupportedModel, "on-device API"),
    ],
)
def test_what_cannot_be_meant(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse(text)


def test_near_names_and_the_forms_are_told() -> None:
    with pytest.raises(NotFound) as caught:
        parse("smolm2-135m")
    assert "smollm2-135m-instruct" in caught.value.next_step
    assert "org/name@revision" in caught.value.next_step


def test_directories_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="neither"):
        parse(str(tmp_path))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"2 \.gguf files"):
        parse(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"not a \.gguf file"):
        parse(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize("text", ["", "...", "日本", "A  b/..c"])
def test_slugs_are_fit_for_file_names(text: str) -> None:
    assert set(slug(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert slug(text).strip(".-") == slug(text) != ""


def checkpoint(directory: Path) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (directory / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A card\n")
    (directory / "optimizer.pt").write_bytes(b"a pickle")
    save_file({"a": np.ones(5, np.float32)}, directory / "model.safetensors")
    return directory


def test_a_directory_is_a_source_whose_revision_follows_its_content(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model")
    source = fetch(parse(str(directory)), tmp_path / "downloads", no_progress)
    assert {file.path for file in source.files} == {"config.json", "README.md", "model.safetensors"}
    assert all(file.sha256 == digests.sha256(directory / file.path) for file in source.files)
    assert (source.format, source.licence, source.directory) == ("safetensors", "Apache-2.0", directory)
    assert fetch(parse(str(directory)), tmp_path / "downloads", no_progress) == source
    save_file({"a": np.zeros(5, np.float32)}, directory / "model.safetensors")
    changed = fetch(parse(str(directory)), tmp_path / "downloads", no_progress)
    assert changed.revision != source.revision


def test_a_gguf_brings_the_licence_beside_it(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "LICENSE").write_text("terms")
    (tmp_path / "other.txt").write_text("x")
    source = fetch(parse(str(tmp_path / "m.gguf")), tmp_path / "downloads", no_progress)
    assert [file.path for file in source.files] == ["LICENSE", "m.gguf"]
    assert (source.format, source.licence) == ("gguf", "unknown")


def test_a_directory_of_pickles_is_refused(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="only pickled weights"):
        fetch(parse(str(directory)), tmp_path / "downloads", no_progress)


def test_digests_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    digest = digests.Digests(tmp_path).of(path)
    with monkeypatch.context() as patch:
        patch.setattr(digests, "sha256", lambda *_: pytest.fail("the file was read again"))
        assert digests.Digests(tmp_path).of(path) == digest
    path.write_bytes(b"changed")
    assert digests.Digests(tmp_path).of(path) != digest


def test_digests_may_be_recorded_by_many_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"file{number}" for number in range(40)]
    for path in paths:
        path.write_text(path.name)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(digests.Digests(tmp_path).of, paths))
    assert found == [digests.sha256(path) for path in paths]
    assert {path.name for path in tmp_path.iterdir()} == {digests.RECORD, *(path.name for path in paths)}


def test_a_broken_record_of_digests_costs_only_a_reading(tmp_path: Path) -> None:
    (tmp_path / digests.RECORD).write_text("[not json")
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert digests.Digests(tmp_path).of(path) == digests.sha256(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("---\nlicense: mit\n---\n", "MIT"), ("---\nlicense: 'gemma'\n---\n", "gemma"), ("# no card", None), ("", None)],
)
def test_the_licence_of_a_card(tmp_path: Path, text: str, expected: str | None) -> None:
    (tmp_path / "README.md").write_text(text)
    assert card_licence(tmp_path / "README.md") == expected
