"""The catalogue's promises."""

from __future__ import annotations

import re

from kobako.pipeline import catalogue, families
from kobako.pipeline.fetch.refs import HUB_ID, slug


def test_every_entry_is_complete() -> None:
    assert len(catalogue.entries()) >= 8
    for entry in catalogue.entries():
        assert slug(entry.name) == entry.name
        assert (entry.hub is None) != (entry.pypi is None)
        assert entry.hub is None or HUB_ID.fullmatch(entry.hub)
        assert entry.description
        assert entry.licence
        assert 1e6 < entry.parameters < 1e10
        assert set(entry.tasks) <= {"chat", "summarize", "translate", "embed", "classify", "fill-mask"}
        assert entry.supported == (entry.model_type in families.names())


def test_pypi_entries_pin_versions_and_digests() -> None:
    for entry in catalogue.entries():
        for package in entry.pypi.packages if entry.pypi else ():
            assert re.fullmatch(r"[\w.-]+==[\w.]+", package)
        for file in entry.pypi.files if entry.pypi else ():
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.size_bytes > 0
            assert file.parts
            assert not file.path.startswith("/")
            assert ".." not in file.path


def test_names_and_aliases_are_unique() -> None:
    names = [name for entry in catalogue.entries() for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))


def test_finding() -> None:
    found = catalogue.find("SmolLM2-135M")
    assert found is not None
    assert found.name == "smollm2-135m-instruct"
    assert found.supported
    assert catalogue.find("smollm2-135") is None
    assert "smollm2-135m-instruct" in catalogue.near("smolm2-135m-instruct")
    assert catalogue.near("zzzzzz") == []


def test_a_family_that_is_missing_makes_an_entry_unsupported_not_absent() -> None:
    minilm = catalogue.find("all-minilm-l6-v2")
    assert minilm is not None
    assert minilm.supported == ("bert" in families.names())


def test_closed_models_say_why() -> None:
    for name in ("gemini-nano", "Gemini Nano", "google/gemini_nano", "Apple Intelligence", "apple-foundation-models"):
        known = catalogue.closed(name)
        assert known is not None
        assert "closed" in known.reason
        assert "on-device API" in known.reason
        assert known.instead
        assert all(catalogue.find(instead) for instead in known.instead)
    assert catalogue.closed("smollm2-135m") is None
