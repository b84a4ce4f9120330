"""What a multimodal checkpoint loses on its way is said in every place where somebody looks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kobako.pipeline.leftout import left_out, text_only
from kobako.pipeline.manifest import read_manifest
from tiny_package import contents, source, write_package

SAID = "Text only: what the original reads of images and audio is left out."


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"model_type": "llama"}, ()),
        ({"model_type": "olmo2", "vision_config": {"hidden_size": 8}}, ()),
        ({"model_type": "gemma4", "vision_config": {"hidden_size": 8}, "audio_config": None}, ("images",)),
        ({"model_type": "gemma3n", "vision_config": {"a": 1}, "audio_config": {"a": 1}}, ("images", "audio")),
        ({"model_type": "t5gemma2", "encoder": {"vision_config": {"a": 1}}}, ("images",)),
        ({"model_type": "phi4_multimodal"}, ("images", "audio")),
        ({"model_type": "phi4mm", "vision_lora": {"r": 256}, "speech_lora": {"r": 320}}, ("images", "audio")),
    ],
)
def test_what_is_left_out(tmp_path: Path, config: dict[str, Any], parts: tuple[str, ...]) -> None:
    here = source(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert left_out(here) == parts
    assert left_out(replace(here, format="gguf")) == ()
    assert text_only(parts).count("Text only") == bool(parts)


def test_a_package_says_so_everywhere(tmp_path: Path) -> None:
    """Manifest, report, page and card."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text('{"model_type": "gemma3n"}')
    package = write_package(tmp_path, tmp_path / "package")
    assert read_manifest(package)["model"]["left_out"] == ["images", "audio"]
    assert json.loads((package / "report.json").read_text())["left_out"] == ["images", "audio"]
    assert SAID in (package / "report.html").read_text()
    assert SAID in (package / "README.md").read_text()


def test_a_model_of_text_says_nothing_of_it(tmp_path: Path) -> None:
    package = write_package(tmp_path, tmp_path / "package", source=contents(tmp_path / "other").source)
    assert "left_out" not in read_manifest(package)["model"]
    assert "Text only" not in (package / "README.md").read_text()
