"""The page: complete, escaped, self-contained, and honest about what is missing."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from kobako.pipeline.report import render_html

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks nesting while it reads, and keeps tags with their attributes and the text people see."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def test_loads_nothing_and_runs_nothing(proven: dict[str, Any], broken: dict[str, Any]) -> None:
    for data in (proven, broken):
        source = render_html(data)
        page = Page(source)
        assert not {tag for tag, _ in page.tags} & {
            "script",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "image",
            "use",
        }
        for tag, attributes in page.tags:
            for name, value in attributes.items():
                assert not name.startswith("on"), (tag, name)
                if name in ("src", "href", "xlink:href", "srcset", "action"):
                    assert re.match(r"#|data:,$", value or ""), (tag, name, value)
        assert "@import" not in source
        assert re.findall(r"url\((?!#)", source) == []
        assert "default-src 'none'" in source


def test_hostile_strings_appear_as_text_only(proven: dict[str, Any], hostile: str) -> None:
    proven["name"] = proven["source"]["licence"] = proven["tasks"][0] = hostile
    proven["targets"][hostile] = proven["targets"].pop("executorch")
    proven["targets"][hostile]["files"] = {hostile: 1}
    proven["targets"][hostile]["vendor_versions"] = {hostile: hostile}
    proven["stages"][0]["stage"] = hostile
    proven["weights_bytes_by_part"][hostile] = 10_000_000
    source = render_html(proven)
    assert "<b onload" not in source
    assert "</script" not in source
    seen = hostile.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    assert source.count(html.escape(seen, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")) >= 9
    assert re.sub(r"\s+", " ", seen) in Page(source).words
    source.encode("utf-8")


def test_ids_are_unique_and_every_picture_is_described(broken: dict[str, Any]) -> None:
    page = Page(render_html(broken))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) == 8  # two of speed, size, layers, stages, and one per target
    for attributes in pictures:
        assert set((attributes["aria-labelledby"] or "").split()) <= set(ids)
    targets = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {str(link).removeprefix("#") for link in targets} <= set(ids)


def test_the_curve_a_mixture_was_chosen_from_is_drawn(proven: dict[str, Any]) -> None:
    assert "Size against quality" not in Page(render_html(proven)).words
    proven["curve"] = [
        {"wide": [], "weights_bytes": 77_000_000, "weights_loss_nats": 0.05, "loss_nats": 0.07},
        {"wide": ["layer 0 mlp"], "weights_bytes": 99_000_000, "weights_loss_nats": 0.02, "loss_nats": 0.04},
        {"wide": ["layer 0 mlp", "table"], "weights_bytes": 136_000_000, "weights_loss_nats": 0.01, "loss_nats": 0.03},
    ]
    source = render_html(proven)
    page = Page(source)
    assert "3 mixtures from 77.0 MB and 0.07 nats to 136.0 MB and 0.03 nats" in source
    described = [
        attributes["aria-labelledby"] for tag, attributes in page.tags if tag == "svg" and "role" in attributes
    ]
    assert "pareto-title pareto-desc" in described
    assert "optimum-executorch 8da4w" in page.words  # a model whose rivals are known
    proven["source"]["name"] = "another"
    assert "optimum" not in Page(render_html(proven)).words
    for target in proven["targets"].values():
        target["report"]["activations"] = "float16"
    assert "3 mixtures from 77.0 MB and 0.05 nats" in render_html(proven)


def test_a_passing_package_says_so(proven: dict[str, Any]) -> None:
    page = Page(render_html(proven)).words
    assert "All three formats are proven to say what the model says." in page
    assert "✗" not in page
    assert "≠ differs" in page  # one prompt of five may
    assert "where the reference's best two logits are 0.012 apart" in page
    assert "LiteRT does not show the layers in this runtime." in page


def test_a_failing_target_shows_what_fails_and_what_is_missing(broken: dict[str, Any]) -> None:
    page = Page(render_html(broken)).words
    assert "LiteRT does not pass the proof." in page
    assert "3 of 8 checks fail: the file does not compute what the quantized model computes" in page
    assert "layer 12 is the first whose keys depart" in page
    assert "KL not a number" in page
    assert "5 tokens gave no number at all" in page
    assert "Speed was not measured: a failing proof is not worth timing." in page
    assert "No text was generated: the proof did not get this far." in page
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", page.replace("nan nats", ""))


def test_every_check_is_on_the_page_with_its_demand(broken: dict[str, Any]) -> None:
    page = Page(render_html(broken)).words
    for target in broken["targets"].values():
        for check in target["report"]["checks"]:
            assert f"{check['name']} {check['demand']} {check['value']}" in page


def test_speed_of_an_interpreter_is_never_shown_plainly(proven: dict[str, Any]) -> None:
    page = Page(render_html(proven)).words
    followed = re.findall(r"\b2\.3 tok/s (in an interpreter|interpreter, no phone speed)", page)
    assert len(followed) == page.count("2.3 tok/s") == 3
    assert "Core ML: 2.3 tok/s in an interpreter" in page  # the description of the picture
    assert "says nothing of an interpreter" in page
    assert "1.3%" not in page
    proven["targets"]["coreml"]["measurement"]["engine"] = "Core ML, macOS 15.5"
    assert "interpreter" not in Page(render_html(proven)).words


@pytest.mark.parametrize("gone", ["fidelity", "quality", "greedy"])
def test_missing_figures_are_named_not_drawn(proven: dict[str, Any], gone: str) -> None:
    for target in proven["targets"].values():
        del target["report"]["figures"][gone]
        target["report"]["checks"] = [check for check in target["report"]["checks"] if check["part"] != gone]
    page = Page(render_html(proven)).words
    absent = {"fidelity": "predictions were not compared", "quality": "not compared", "greedy": "No text was generated"}
    assert absent[gone] in page


def test_nothing_measured_no_stages_no_targets(proven: dict[str, Any]) -> None:
    for target in proven["targets"].values():
        target["measurement"] = None
    proven["stages"], proven["weights_bytes_by_part"] = [], {}
    assert "Writing an answer (decode)" not in Page(render_html(proven)).words
    proven["targets"] = {}
    assert "Nothing was built, so nothing is proven." in Page(render_html(proven)).words


def test_zeros_lie_on_the_floor_of_the_logarithmic_axis(proven: dict[str, Any]) -> None:
    series = proven["targets"]["executorch"]["report"]["figures"]["fidelity"]["decode"]["kl_nats_per_token"]
    paths = re.findall(r'<path d="([^"]+)" class="dots c1">', render_html(proven))
    spots = [tuple(map(float, spot.split())) for spot in re.findall(r"M([\d.]+ [\d.]+)h0", paths[0])]
    assert len(spots) == len(series) == 512
    floor = max(y for _, y in spots)
    assert {index for index, (_, y) in enumerate(spots) if y == floor} == {
        i for i, value in enumerate(series) if value == 0
    }
    positive = sorted((value, -y) for value, (_, y) in zip(series, spots, strict=True) if value > 0)
    assert [y for _, y in positive] == sorted(y for _, y in positive)


def test_a_local_path_does_not_leave_the_machine(proven: dict[str, Any]) -> None:
    proven["source"]["origin"] = "file:///home/someone/secret/my-model"
    source = render_html(proven)
    assert "a local file or directory (my-model)" in source
    assert "someone" not in source


def test_drawing_escapes_attributes_and_words() -> None:
    from kobako.pipeline.report.svg import element

    assert element("text", {"class": '"><x a="'}, "<b>") == '<text class="&#34;&gt;&lt;x a=&#34;">&lt;b&gt;</text>'


def test_a_costly_recipe_is_in_the_headline(proven: dict[str, Any]) -> None:
    for target in proven["targets"].values():
        target["report"]["figures"]["quality"]["top1"] = 0.727
    assert "picks the original's next token only 72.7% of the time" in html.unescape(render_html(proven))
