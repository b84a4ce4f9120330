"""Report, card and tables of encoders: their own figures, and nothing about text that they do not write."""

from __future__ import annotations

from typing import Any

import pytest
from kobako.pipeline.cli.tables import result_table
from kobako.pipeline.codec import to_json
from kobako.pipeline.report import model_card, render_html
from kobako.pipeline.report.encoder import head_words
from kobako.pipeline.report.rows import table
from rich.console import Console

from tests.encoders import CLASSIFY, EMBED
from tests.unit.report.test_report_page import Page


@pytest.fixture
def read(proven: dict[str, Any]) -> dict[str, Any]:
    """The data of an encoder that embeds."""
    compared = {
        "texts": 3, "distance": 2e-6, "distance_max": 4e-6, "largest_error": 0.003, "agreement": 1.0,
        "distances": [1e-6, 4e-6, 1e-6],
    }  # fmt: skip
    quality = {f"quality_{key}": value for key, value in (compared | {"distance": 0.0123}).items()}
    for target in proven["targets"].values():
        target["report"]["figures"] = {
            "fidelity": {"texts": compared},
            "quality": quality | {"found": 15, "questions": 16, "similarity_correlation": 0.99},
        }
        if target["measurement"]:
            target["measurement"] |= {"decode_tokens_per_s": None, "bandwidth_share": None}
    return proven | {"head": to_json(EMBED), "tasks": ["embed"]}


def test_the_page_shows_answers_and_no_generated_text(read: dict[str, Any]) -> None:
    shown = " ".join(Page(render_html(read)).text)
    assert "Every text becomes a vector of 64 numbers, of length 1" in shown
    assert "Distance of every text's answer" in shown
    assert "first answer after" in shown
    assert "Reading a text" in shown
    for absent in (
        "continued",
        "No text was generated",
        "Writing an answer",
        "per token to draw",
        "one language model",
    ):
        assert absent not in shown


def test_missing_figures_are_named(read: dict[str, Any]) -> None:
    for target in read["targets"].values():
        target["report"]["figures"] = {}
    shown = " ".join(Page(render_html(read)).text)
    assert "no divergence per text to draw" in shown
    assert "not compared" in shown


def test_the_table_has_cosines_of_vectors_and_divergences_of_labels(read: dict[str, Any]) -> None:
    rows = {row.label: row.cells[0] for row in table(read)}
    assert rows["Fidelity"].text == "cosine 0.999998"
    assert (rows["Quality"].text, rows["Quality"].note) == ("cosine 0.987700", "finds 15 of 16 passages")
    labels = {row.label: row.cells[0] for row in table(read | {"head": to_json(CLASSIFY)})}
    assert (labels["Quality"].text, labels["Quality"].note) == ("KL 0.012", "same label 100%")


def test_the_card_shows_how_to_call_every_format(read: dict[str, Any]) -> None:
    card = model_card(read)
    assert 'pipeline_tag: "feature-extraction"' in card
    for words in ("get_signature_runner", 'load_method("forward")', "encode_1024", "texts, ids and answers", "cosine"):
        assert words in card
    for absent in ("TextLLMRunner", "litert_lm", "KV cache", "chat template"):
        assert absent not in card


def test_heads_in_words() -> None:
    assert head_words({"head": to_json(CLASSIFY)}) == "Every text gets labels: good, bad and neither."
    many = to_json(CLASSIFY) | {"labels": [str(n) for n in range(10)]}
    assert head_words({"head": many}).endswith("6 and 7 and 2 more.")
    assert "usual default" in head_words({"head": to_json(EMBED) | {"stated": False}})


def test_the_terminals_table(read: dict[str, Any]) -> None:
    out = Console(width=200, record=True)
    out.print(result_table(read))
    shown = out.export_text()
    assert "cosine 0.999998" in shown
    assert "finds 15 of 16 passages" in shown
    assert "decode" not in shown
