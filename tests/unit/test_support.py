"""The table of supported architectures is complete, within the gates, and the one in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from kobako.pipeline import families
from kobako.pipeline.contracts import Activations
from kobako.pipeline.encoder.gates import fidelity_gate as encoder_gate
from kobako.pipeline.errors import UnsupportedModel
from kobako.pipeline.support import RECIPES, TARGETS, Supported, markdown, supported
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
                assert all(figures[f"{target} {recipe}"] <= limit_of(entry, rounded) for _, figures in entry.rows)


def limit_of(entry: Supported, rounded: bool) -> float:
    """The gate of a quiet model."""
    activations: Activations = "int8-dynamic" if rounded else "float32"
    if entry.kind == "encoder":
        return encoder_gate(activations, {"distance": 0.0, "largest_error": 0.0, "agreement": 1.0}).distance
    return fidelity_gate(activations, {"kl_nats": 0.0, "top1": 1.0}).kl_nats


def test_the_documentation_holds_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "support.md"
    for kind in ("decoder", "encoder", "seq2seq"):
        assert f"\n{markdown(kind)}\n" in page.read_text(encoding="utf-8")


def test_a_family_file_is_short() -> None:
    for path in Path(families.__path__[0]).glob("*.py"):
        if path.stem != "__init__":
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, path


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("bart", "architecture bart: this encoder-decoder"),
        ("electra", "architecture electra: this encoder"),
        ("modernbert", "architecture modernbert: this encoder"),
        ("lama", "'llama'"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_name(model_type: str, words: str) -> None:
    with pytest.raises(UnsupportedModel) as refused:
        families.get(model_type)
    assert words in str(refused.value)


def test_a_decoder_without_a_file_is_taken_for_a_llama() -> None:
    family = families.get("olmo2")
    assert (family.embedding, family.feeds) == ("model.embed_tokens.weight", {})
