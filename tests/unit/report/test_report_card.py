"""The model card: front matter the Hub can read, literal text, and no promise the proof does not keep."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from kobako.pipeline.report import model_card


def front_matter(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_front_matter(proven: dict[str, Any]) -> None:
    assert front_matter(model_card(proven)) == {
        "license": "apache-2.0",
        "tags": ["kobako", "executorch", "coreml", "litert", "int8", "on-device", "quantized"],
        "pipeline_tag": "text-generation",
        "library_name": "kobako",
    }


def test_a_model_of_the_hub_names_its_base(proven: dict[str, Any]) -> None:
    proven["source"]["origin"] = "hf://HuggingFaceTB/SmolLM2-360M-Instruct"
    proven["tasks"] = ["translate"]
    del proven["targets"]["coreml"]
    found = front_matter(model_card(proven))
    assert found["base_model"] == "HuggingFaceTB/SmolLM2-360M-Instruct"
    assert found["pipeline_tag"] == "translation"
    assert "coreml" not in found["tags"]


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("Gemma", {"license": "gemma"}),
        ("Some Lab's Licence 1.0", {"license": "other", "license_name": "some-lab-s-licence-1.0"}),
        ("", {"license": "other", "license_name": "unknown"}),
    ],
)
def test_licences(proven: dict[str, Any], licence: str, fields: dict[str, str]) -> None:
    proven["source"]["licence"] = licence
    assert fields.items() <= front_matter(model_card(proven)).items()


def test_front_matter_cannot_be_broken_out_of(proven: dict[str, Any], hostile: str) -> None:
    origin = f'hf://a/b"\n---\nlicense: mit\n{hostile}'
    proven["source"] |= {"origin": origin, "licence": hostile}
    found = front_matter(model_card(proven))
    assert found["license"] == "other"
    assert found["base_model"].startswith('a/b"\n---\nlicense: mit\n</script>')


def test_hostile_text_is_literal_and_tables_keep_their_shape(broken: dict[str, Any], hostile: str) -> None:
    broken["name"] = broken["source"]["name"] = broken["source"]["revision"] = broken["model_type"] = hostile
    broken["targets"]["litert"]["files"] = {hostile + "\n| x |": 1_000}
    card = model_card(broken)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", card.split("---\n", 2)[2], flags=re.S)
    assert "<b onload" not in outside
    assert "</script" not in outside
    for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.M):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def test_the_proof_is_in_it_with_every_target(proven: dict[str, Any]) -> None:
    card = model_card(proven)
    assert "|  | ExecuTorch | Core ML | LiteRT |" in card
    assert "| 131 tok/s | 2.3 tok/s (interpreter, no phone speed) | 131 tok/s |" in card
    assert 'TextLLMRunner("executorch/model.pte", "executorch/tokenizer.json")' in card
    assert "coreml/model.mlpackage" in card
    assert 'Engine("litert/model.litertlm")' in card
    assert "Core ML in Apple's own runtime." in card
    assert "❌" not in card


def test_a_failing_target_is_warned_of_before_anything_else(broken: dict[str, Any]) -> None:
    card = model_card(broken)
    assert card.index("> ❌ **LiteRT does not pass its proof.**") < card.index("## What is inside")


def test_only_present_targets_are_explained(proven: dict[str, Any]) -> None:
    proven["targets"] = {"litert": proven["targets"]["litert"], "new-format": proven["targets"]["executorch"]}
    card = model_card(proven)
    assert "TextLLMRunner(" not in card
    assert "MLModel" not in card
    assert "Apple" not in card
    assert "new-format" in card
