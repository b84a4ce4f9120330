"""The table of supported architectures is complete, within the gates, and the one in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from kobako.pipeline import families
from kobako.pipeline.errors import UnsupportedModel
from kobako.pipeline.support import RECIPES, TARGETS, markdown, supported
from kobako.pipeline.validate.gates import fidelity_gate


def test_every_family_is_measured_on_every_target_within_the_gates() -> None:
    measured = {entry.model_type: entry for entry in supported()}
    own = {name for name in families.names() if families.get(name).rewrite is None}  # others become one of these
    assert own <= set(measured)
    for entry in measured.values():
        assert entry.generic is (entry.model_type not in families.names())
        for target in TARGETS:
            for recipe in RECIPES:
                rounded = recipe == "int8" and target != "coreml"
                gate = fidelity_gate("int8-dynamic" if rounded else "float32", {"kl_nats": 0.0, "top1": 1.0})
                assert entry.kl_nats[f"{target} {recipe}"] <= gate.kl_nats


def test_the_documentation_holds_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "support.md"
    assert markdown() in page.read_text(encoding="utf-8")


def test_a_family_file_is_short() -> None:
    for path in Path(families.__path__[0]).glob("*.py"):
        if path.stem != "__init__":
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, path


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("t5", "architecture t5: encoder-decoder"),
        ("bert", "architecture bert: encoder models"),
        ("distilbert", "architecture distilbert: encoder models"),
        ("lama", "'llama'"),
    ],
)
def test_what_is_no_decoder_is_refused_by_name(model_type: str, words: str) -> None:
    with pytest.raises(UnsupportedModel) as refused:
        families.get(model_type)
    assert words in str(refused.value)


def test_a_decoder_without_a_file_is_taken_for_a_llama() -> None:
    family = families.get("olmo2")
    assert (family.embedding, family.feeds) == ("model.embed_tokens.weight", {})
