"""``scripts/bench/tasks``: its items, its scores, its intervals, and the answers it keeps."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from kobako.pipeline.errors import NotFound
from kobako.pipeline.prooftext import PROMPTS
from kobako.pipeline.tasks import EXAMPLES

ROOT = Path(__file__).parents[2]
INSIDE = ROOT / "scripts" / "bench" / "inside"
if not INSIDE.is_dir():
    pytest.skip("a source distribution holds no scripts", allow_module_level=True)
sys.path.append(str(INSIDE))

from taskscores.answers import Answer, Kept, Question, Speaker, ask  # noqa: E402
from taskscores.items import LANGUAGES, items_for, records  # noqa: E402
from taskscores.rows import Asked, markdown, rows_of  # noqa: E402
from taskscores.scores import Interval, bootstrap, chrf, rouge_l, signatures  # noqa: E402


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def runs(text: str, length: int = 6) -> set[tuple[str, ...]]:
    """All runs of so many words."""
    found = words(text)
    return {tuple(found[n : n + length]) for n in range(len(found) - length + 1)}


def sentences(text: str) -> int:
    return len(re.findall(r"[.!?](?= |$)", text))


def test_there_are_enough_items_and_no_two_alike() -> None:
    summaries, translations = records("summaries"), records("translations")
    assert len(summaries) >= 24
    assert len(translations) >= 30
    for name, fields in (("summaries", ("id", "text", "summary")), ("translations", ("id", "en", *LANGUAGES))):
        for field in fields:
            values = [" ".join(words(one[field])) for one in records(name)]
            assert len(set(values)) == len(values), f"two {name} share their {field}"
    assert len({one["subject"] for one in summaries}) >= 20


def test_every_item_is_complete() -> None:
    for one in records("summaries"):
        assert set(one) == {"id", "subject", "text", "summary"}
        assert 3 <= sentences(one["text"]) <= 5, one["id"]
        assert sentences(one["summary"]) == 1, one["id"]
        assert len(words(one["summary"])) < len(words(one["text"])) / 2, one["id"]
    for one in records("translations"):
        assert set(one) == {"id", "situation", "en", *LANGUAGES}
        for language in ("en", *LANGUAGES):
            assert one[language] == one[language].strip()
            assert one[language][-1] in ".?!", one["id"]
            assert one[language].endswith("?") == one["en"].endswith("?"), one["id"]
            assert language == "en" or one[language] != one["en"]
        assert one["es"].startswith("¿") == one["es"].endswith("?"), one["id"]


def test_no_item_is_known_to_the_pipeline() -> None:
    texts = sorted((ROOT / "pipeline" / "texts").iterdir())
    assert texts
    known = " ".join([*(path.read_text(encoding="utf-8") for path in texts), *PROMPTS])
    for task in ("summarize", "translate"):
        for item in items_for(task):
            for text in (item.text, item.reference):
                assert not runs(text) & runs(known), item
                assert " ".join(words(text)) not in " ".join(words(known)), item
    shown = {" ".join(words(text)) for pairs in EXAMPLES.values() for pair in pairs for text in pair}
    asked = {" ".join(words(one[field])) for one in records("translations") for field in ("en", *LANGUAGES)}
    assert not shown & asked


def test_a_limit_takes_texts_not_languages() -> None:
    assert [(item.cluster, item.to) for item in items_for("translate", 2)] == [
        (text, to) for to in LANGUAGES for text in ("t01", "t02")
    ]
    assert len(items_for("summarize", 3)) == 3


def test_rouge_l_follows_the_order_of_stemmed_words() -> None:
    assert rouge_l("The dogs were barking.", "the dog were bark") == pytest.approx(100)
    assert rouge_l("four three two one", "one two three four") == pytest.approx(25)
    assert rouge_l("the cat sat", "the cat sat on the mat") == pytest.approx(100 * 2 * 1 * 0.5 / 1.5)
    assert rouge_l("", "one two") == 0


def test_chrf_sees_endings_and_accents() -> None:
    reference = "Où est la gare ?"
    assert chrf(reference, reference) == pytest.approx(100)
    assert chrf("", reference) == 0
    assert chrf("xyz", "où") == 0
    assert 50 < chrf("Ou est la gare ?", reference) < 100
    assert chrf("Où sont les gares ?", reference) > chrf("Wo ist der Bahnhof?", reference)


def test_signatures_name_library_and_settings() -> None:
    told = signatures()
    assert "nc:6|nw:0" in told["chrF"]
    assert "10000 resamples" in told["interval"]


def test_an_interval_of_equal_values_has_no_width() -> None:
    assert bootstrap([2.0] * 5, list("abcde")) == Interval(2.0, 2.0, 2.0)
    assert bootstrap([2.0, 4.0], ["a", "a"]) == Interval(3.0, None, None)
    with pytest.raises(ValueError, match="nothing to average"):
        bootstrap([], [])


def test_an_interval_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    import numpy as np

    values = np.random.default_rng(3).gamma(2.0, 3.0, size=40)
    found = bootstrap(list(values), [str(n) for n in range(40)])
    other = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.1)
    assert bootstrap(list(values), [str(n) for n in range(40)]) == found


def test_texts_are_drawn_with_all_their_languages() -> None:
    """Three copies of each value say no more than one: the interval must not shrink."""
    values = [0.0, 1.0, 5.0, 9.0, 2.0, 4.0]
    once, thrice = bootstrap(values, list("abcdef")), bootstrap(values * 3, list("abcdef") * 3)
    assert (thrice.mean, thrice.low, thrice.high) == pytest.approx((once.mean, once.low, once.high))
    alone = bootstrap(values * 3, [str(n) for n in range(18)])
    assert alone.high - alone.low < 0.8 * (once.high - once.low)


def said(texts: list[str], tokens: int = 5) -> list[Answer]:
    return [Answer(text, tokens, "an engine") for text in texts]


def test_rows_show_differences_to_the_float_model() -> None:
    items = [replace(item, reference="uno dos tres") for item in items_for("translate", 2)]
    originals = said(["uno dos tres"] * 6)
    answers = said(["uno dos tres", " uno dos tres\n", "uno dos", "uno dos tres", "zzz", "zzz"])
    answers[4] = replace(answers[4], generated_tokens=96)
    own = list(rows_of(Asked("m", "float", items, originals, originals, 96)))
    rows = list(rows_of(Asked("m-int4", "litert", items, answers, originals, 96)))
    assert [row.metric for row in rows] == ["chrF", "chrF fr", "chrF de", "chrF es"]
    assert [row.identical for row in rows] == pytest.approx([3 / 6, 1, 1 / 2, 0])
    assert [row.cut_off for row in rows] == pytest.approx([1 / 6, 0, 0, 1 / 2])
    assert own[0].score == Interval(100.0, 100.0, 100.0)
    assert (own[0].delta, own[0].identical, own[0].agreement) == (None, None, None)
    assert rows[3].score.mean == 0
    assert rows[3].delta == Interval(-100.0, -100.0, -100.0)
    assert rows[0].delta is not None
    assert rows[0].delta.mean == pytest.approx(rows[0].score.mean - 100)
    assert rows[0].texts == 2
    table = markdown([*own[:1], *rows]).splitlines()
    assert table[2] == "| m | float | chrF | 2 | 100.0 | – | – | – | 0 % |"
    assert table[-1] == "| m-int4 | litert | chrF es | 2 | 0.0 | −100.0 [−100.0, −100.0] | 0.0 | 0 % | 50 % |"
    assert "| 0.0 [0.0, 0.0] | 100.0 | 100 % |" in table[4]


def test_kept_answers_are_not_asked_for_again(tmp_path: Path) -> None:
    first, second = Question("one", 8, ()), Question("two", 8, ("\n",))
    speaker = Speaker("nobody", {"target": "nonsense", "exported": {}})
    kept = Kept(tmp_path / "answers" / "nobody.json")
    kept.put(first, Answer("eins", 2, "an engine"))
    kept.put(second, Answer("zwei", 2, "an engine"))
    told: list[tuple[int, int]] = []
    found = ask(speaker, [second, first, second], lambda done, of: told.append((done, of)), home=tmp_path)
    assert [answer.text for answer in found] == ["zwei", "eins", "zwei"]
    assert told == [(2, 2)]
    assert not list((tmp_path / "answers").glob("*.partial"))
    for other in (replace(first, max_new_tokens=9), replace(first, stop=("\n",)), replace(first, prompt="one ")):
        assert Kept(tmp_path / "answers" / "nobody.json").get(other) is None


def test_the_error_of_the_answering_process_comes_through(tmp_path: Path) -> None:
    speaker = Speaker("nobody", {"target": "nonsense", "exported": {}})
    with pytest.raises(NotFound, match="no target 'nonsense'"):
        ask(speaker, [Question("one", 8, ())], lambda *_: None, home=tmp_path)
    assert not (tmp_path / "answers").exists()
