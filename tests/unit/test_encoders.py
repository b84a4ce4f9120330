"""What is found out about an encoder's checkpoint, its tokenizer, its tasks, and the figures of its proof."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline import families
from kobako.pipeline.codec import to_json
from kobako.pipeline.contracts import RECIPES, Source, SourceFile
from kobako.pipeline.encoder.compare import Comparison, correlation, found, probabilities
from kobako.pipeline.encoder.engine import TextEncoder, named
from kobako.pipeline.encoder.gates import fidelity_gate, quality_gate
from kobako.pipeline.encoder.spans import best_span, settled
from kobako.pipeline.encoder.standard import read_standard, write_answers, write_facts
from kobako.pipeline.encoder.tags import tags_of
from kobako.pipeline.encoder.texts import pairs, proof_ids, proof_texts, texts_for
from kobako.pipeline.errors import BadArtifact, IntegrityError, KobakoError, UnsupportedModel, UsageError
from kobako.pipeline.estimate import parameters_of
from kobako.pipeline.fetch.select import files_below, needed
from kobako.pipeline.heads import EncoderTask, Head, encoder_task, find_head, head_of, reads_table, write_head
from kobako.pipeline.reference.heads import Checkpoint, head_for
from kobako.pipeline.reference.hf_tokenizer import write_encoders
from kobako.pipeline.reference.structure import encoder_lengths, fitting_length
from kobako.pipeline.reference.weights import full_name
from kobako.pipeline.tasks import tasks_for
from kobako.pipeline.tokens import ShippedTokenizer

from tests.encoders import CLASSIFY, EMBED, FILL, vocabulary, write_tokenizer

BERT = families.get("bert")
CONFIG: Mapping[str, Any] = {
    "model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 512, "hidden_size": 64,
}  # fmt: skip
MODULES = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Normalize")]
MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


def head_of_checkpoint(
    directory: Path, config: Mapping[str, Any] = CONFIG, names: Sequence[str] = (), task: EncoderTask | None = None,
    **files: object,
) -> Head:  # fmt: skip
    """The head found in a BERT's checkpoint of these files."""
    write_tokenizer(directory / "made")
    made = Checkpoint(source=source_of(directory, **files), family=BERT, config=config, names=names)
    return head_for(made, ShippedTokenizer(directory / "made"), task)


def source_of(directory: Path, **files: object) -> Source:
    """A source of JSON files; ``__`` in a name is a folder's slash, ``_dot_`` the dot."""
    listed = []
    for key, value in files.items():
        path = key.replace("__", "/").replace("_dot_", ".")
        path = path.replace("Pooling/", "1_Pooling/")
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(value if isinstance(value, str) else json.dumps(value))
        listed.append(SourceFile(path=path, size_bytes=1, sha256="0" * 64))
    return Source(
        name="m", origin="hf://a/m", revision="0", directory=directory, files=tuple(listed), format="safetensors",
        licence="MIT",
    )  # fmt: skip


def test_sentence_transformers_files_say_how_a_vector_is_made(tmp_path: Path) -> None:
    head = head_of_checkpoint(
        tmp_path, modules_dot_json=MODULES, Pooling__config_dot_json=MEAN,
        sentence_bert_config_dot_json={"max_seq_length": 128},
    )  # fmt: skip
    assert head == Head(task="embed", size=64, longest_tokens=128, pooling="mean", normalize=True, stated=True)


def test_a_bare_checkpoint_is_pooled_by_the_usual_default_and_says_so(tmp_path: Path) -> None:
    head = head_of_checkpoint(tmp_path, CONFIG, ["bert.pooler.dense.weight"])
    assert (head.pooling, head.normalize, head.stated, head.longest_tokens) == ("mean", False, False, 512)
    assert "not stated" in head.words()


def test_labels_come_in_the_order_of_the_logits(tmp_path: Path) -> None:
    config = {
        **CONFIG, "architectures": ["BertForSequenceClassification"], "problem_type": "multi_label_classification",
        "id2label": {"2": "neutral", "0": "positive", "1": "negative"},
    }  # fmt: skip
    head = head_of_checkpoint(tmp_path, config, ["classifier.weight"])
    assert head.labels == ("positive", "negative", "neutral")
    assert (head.task, head.size, head.many) == ("classify", 3, True)


def test_a_head_that_labels_every_token(tmp_path: Path) -> None:
    named = {"id2label": {"1": "B-PER", "0": "O", "2": "I-PER"}}
    head = head_of_checkpoint(tmp_path, {**CONFIG, **named, "architectures": ["BertForTokenClassification"]})
    assert head == Head(task="tag", size=3, longest_tokens=512, labels=("O", "B-PER", "I-PER"))


REFUSED: tuple[tuple[Mapping[str, Any], Mapping[str, object], type[KobakoError], str], ...] = (
    ({"architectures": ["BertForMultipleChoice"]}, {}, UnsupportedModel, "BertForMultipleChoice"),
    (
        {"architectures": ["BertForQuestionAnswering"], "id2label": {"0": "a", "1": "b", "2": "c"}}, {},
        UnsupportedModel, "3 numbers for a token",
    ),
    ({"architectures": ["BertForSequenceClassification"], "num_labels": 1}, {}, UnsupportedModel, "one score"),
    ({"is_decoder": True}, {}, UnsupportedModel, "as a decoder"),
    ({"position_embedding_type": "relative_key"}, {}, UnsupportedModel, "relative_key"),
    ({}, {"modules_dot_json": [*MODULES, {"type": "sentence_transformers.models.Dense"}]}, UnsupportedModel, "'Dense'"),
    ({}, {"modules_dot_json": MODULES}, IntegrityError, "1_Pooling/config.json"),
    ({}, {"modules_dot_json": {}}, IntegrityError, "not a list"),
    ({}, {"Pooling__config_dot_json": {"pooling_mode_max_tokens": True}}, UnsupportedModel, "pooling_mode_max_tokens"),
    ({}, {"Pooling__config_dot_json": {**MEAN, "pooling_mode_cls_token": True}}, UnsupportedModel, "pools by"),
    ({}, {"Pooling__config_dot_json": "{"}, IntegrityError, "cannot be read"),
)  # fmt: skip


@pytest.mark.parametrize(("changed", "files", "error", "words"), REFUSED)
def test_what_would_give_other_answers_is_refused(
    tmp_path: Path, changed: Mapping[str, Any], files: Mapping[str, object], error: type[KobakoError], words: str
) -> None:
    with pytest.raises(error, match=words):
        head_of_checkpoint(tmp_path, {**CONFIG, **changed}, **files)


def test_a_head_that_nobody_names_is_seen_in_the_tensors(tmp_path: Path) -> None:
    unnamed = {key: value for key, value in CONFIG.items() if key != "architectures"}
    assert head_of_checkpoint(tmp_path / "a", unnamed, ["bert.pooler.dense.weight"]).task == "embed"
    with pytest.raises(UnsupportedModel, match="qa_outputs"):
        head_of_checkpoint(tmp_path / "b", unnamed, ["qa_outputs.weight"])


def test_a_masked_language_model_fills_in_words_unless_it_shall_embed(tmp_path: Path) -> None:
    config = {**CONFIG, "architectures": ["BertForMaskedLM"], "vocab_size": 384}
    names = ["bert.embeddings.word_embeddings.weight", "cls.predictions.bias"]
    head = head_of_checkpoint(tmp_path / "a", config, names)
    assert (head.task, head.size, head.mask, head.mask_id) == ("fill-mask", 384, "[MASK]", 4)
    assert head_of_checkpoint(tmp_path / "b", config, names, "embed").task == "embed"
    assert head_of_checkpoint(tmp_path / "c", config, names[:1]).task == "embed"  # the head was left out
    with pytest.raises(UnsupportedModel, match="apart from the embedding's"):
        head_of_checkpoint(tmp_path / "d", {**config, "tie_word_embeddings": False}, names)


def test_one_word_of_every_text_is_masked(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    ids = proof_ids(ShippedTokenizer(tmp_path / "tokenizer"), texts_for(FILL), 160)
    assert [one.count(FILL.mask_id) for one in ids] == [1] * len(proof_texts())
    assert texts_for(EMBED) == proof_texts()


def test_a_text_must_have_one_mask(tmp_path: Path) -> None:
    class Constant:
        name = "constant"

        def encode(self, ids: object, mask: object) -> Any:
            logits = np.zeros(384, np.float32)
            logits[vocabulary().index("moon")] = 9.0
            return logits

        def close(self) -> None: ...

    write_tokenizer(tmp_path / "tokenizer")
    engine = TextEncoder(Constant(), tmp_path / "tokenizer", 64)
    reading = engine.read("the [MASK].", FILL)
    assert (next(iter(reading.labels)), len(reading.labels), reading.values) == ("moon", 5, ())
    for text in ("the moon.", "the [MASK] [MASK]."):
        with pytest.raises(UsageError, match="masked words"):
            engine.read(text, FILL)


def test_only_tasks_of_encoders_ask_for_a_head() -> None:
    assert encoder_task(("summarize",)) is None
    assert encoder_task(("chat", "fill-mask")) == "fill-mask"
    assert reads_table(BERT, FILL) == "cls.predictions.decoder.weight"
    assert reads_table(BERT, EMBED) == ""
    assert reads_table(families.get("llama"), None) == "lm_head.weight"


def test_names_of_old_and_bare_checkpoints() -> None:
    assert full_name("embeddings.LayerNorm.gamma", BERT) == "bert.embeddings.LayerNorm.weight"
    assert full_name("bert.encoder.layer.0.output.LayerNorm.beta", BERT) == "bert.encoder.layer.0.output.LayerNorm.bias"
    assert full_name("classifier.weight", BERT) == "classifier.weight"
    assert full_name("transformer.layer.0.attention.q_lin.weight", families.get("distilbert")).startswith("distilbert.")


def test_a_lone_vocabulary_becomes_the_tokenizer_that_transformers_makes(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    (tmp_path / "out").mkdir()
    words = ["\u2028" if word == "[unused0]" else word for word in vocabulary()]  # ends no line of the file
    source = source_of(tmp_path / "source", vocab_dot_txt="\n".join(words) + "\n")
    write_encoders(source, tmp_path / "out", {})
    text = "The Moon, l'été & 7 waters?"
    assert ShippedTokenizer(tmp_path / "out").encode_prompt(text) == BertTokenizer(
        vocab=str(tmp_path / "source" / "vocab.txt")
    ).encode(text)


def test_capitals_need_a_word_from_the_makers(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    words = "\n".join([*vocabulary()[:-1], "Moon"])
    with pytest.raises(UnsupportedModel, match="do_lower_case"):
        write_encoders(source_of(tmp_path, vocab_dot_txt=words), tmp_path / "out", {})
    told = source_of(tmp_path, vocab_dot_txt=words, tokenizer_config_dot_json={"do_lower_case": False})
    write_encoders(told, tmp_path / "out", {})
    assert ShippedTokenizer(tmp_path / "out").encode("Moon") == [383]


def test_stored_padding_is_taken_out_of_the_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    write_tokenizer(tmp_path / "tokenizer")
    stored = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    stored.enable_padding(length=128)
    stored.enable_truncation(128)
    (tmp_path / "out").mkdir()
    write_encoders(source_of(tmp_path, tokenizer_dot_json=json.loads(stored.to_str())), tmp_path / "out", {})
    shipped = ShippedTokenizer(tmp_path / "out")
    assert len(shipped.encode_prompt("the moon")) == 4
    assert len(shipped.encode_prompt("the moon " * 100)) == 202


def test_a_whole_text_keeps_its_end_when_it_is_cut(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    tokenizer = ShippedTokenizer(tmp_path / "tokenizer")
    ids = tokenizer.encode_whole("the moon " * 100, 20)
    assert (len(ids), ids[0], ids[-1]) == (20, 2, 3)
    assert len(tokenizer.encode_prompt("the moon " * 100)) == 202  # the cut leaves nothing behind


def test_pooling_files_are_fetched(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "modules.json", "1_Pooling/config.json", "2_Dense/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    paths = needed(files_below(tmp_path), "here")
    assert set(paths) == {"config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"}
    assert paths[-1] == "model.safetensors"


def test_the_task_of_an_encoder_is_its_heads(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    tokenizer = ShippedTokenizer(tmp_path / "tokenizer")
    assert [task.output for task in tasks_for((), tokenizer, EMBED)] == ["vector"]
    assert [task.name for task in tasks_for((), tokenizer, CLASSIFY)] == ["classify"]
    with pytest.raises(UsageError, match="Tasks: embed"):
        tasks_for(("summarize",), tokenizer, EMBED)


def test_a_head_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert find_head(tmp_path) is None
    write_head(CLASSIFY, tmp_path)
    assert find_head(tmp_path) == head_of(tmp_path) == CLASSIFY


def test_lengths_of_static_graphs() -> None:
    assert encoder_lengths(256) == (32, 128, 256)
    assert encoder_lengths(64) == (32, 64)
    assert [fitting_length((32, 64), tokens, 64) for tokens in (1, 32, 33, 64)] == [32, 32, 64, 64]
    for tokens in (0, 65):
        with pytest.raises(UsageError):
            fitting_length((32, 64), tokens, 64)


def test_the_proofs_texts_are_of_many_lengths(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    tokenizer, texts = ShippedTokenizer(tmp_path / "tokenizer"), proof_texts()
    assert len({question for question, _ in pairs()} | {passage for _, passage in pairs()}) == 2 * len(pairs())
    lengths = {len(ids) for ids in proof_ids(tokenizer, texts, 256)}
    assert max(lengths) == 256
    assert min(lengths) < 64
    with pytest.raises(UsageError, match="too short"):
        proof_ids(tokenizer, texts, 63)


def test_figures_of_vectors() -> None:
    one = np.eye(3, 4, dtype=np.float32)
    turned = one + np.float32(0.1) * np.roll(one, 1, axis=1)
    same, other = Comparison.of(one, one * 3, EMBED), Comparison.of(one, turned, EMBED)
    assert same.distance == pytest.approx(0.0, abs=1e-12)
    assert same.worst == pytest.approx(2.0)
    assert other.distance == pytest.approx(1.0 - 1.0 / np.sqrt(1.01), rel=1e-6)
    assert found(one, turned) == 3
    assert found(one, np.roll(turned, 1, axis=0)) == 0
    assert correlation(one, -one) == pytest.approx(-1.0)


def test_figures_of_labels() -> None:
    expected = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]], np.float32)
    flipped = expected[:, ::-1].copy()
    assert Comparison.of(expected, expected, CLASSIFY).agreement == 1.0
    assert Comparison.of(expected, flipped, CLASSIFY).agreement == 0.5
    assert Comparison.of(expected, flipped, CLASSIFY).distance > 0.1
    shares = named(expected[0], CLASSIFY)
    assert list(shares) == ["good", "bad", "neither"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_package_that_lies_about_its_labels_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    class Three:
        name = "three"

        def encode(self, ids: object, mask: object) -> Any:
            return np.array([1.0, 2.0, 0.0], np.float32)

        def close(self) -> None: ...

    write_tokenizer(tmp_path / "tokenizer")
    engine = TextEncoder(Three(), tmp_path / "tokenizer", 64)
    assert list(engine.read("the moon", CLASSIFY).labels) == ["bad", "good", "neither"]
    for head in (replace(CLASSIFY, labels=("good", "bad")), replace(CLASSIFY, size=4), EMBED):
        with pytest.raises(BadArtifact, match="answers with 3 numbers"):
            engine.read("the moon", head)
    with pytest.raises(UsageError, match="was built for 64"):
        engine.read("the moon " * 40, CLASSIFY)


def test_labels_that_do_not_exclude_each_other() -> None:
    from dataclasses import replace

    many = replace(CLASSIFY, many=True)
    logits = np.array([[2.0, -2.0, 3.0]], np.float32)
    assert probabilities(logits, many)[0] == pytest.approx([0.8808, 0.1192, 0.9526], abs=1e-4)
    assert Comparison.of(logits, logits * [1, -1, 1], many).agreement == 0.0
    assert Comparison.of(logits, logits + 0.1, many).agreement == 1.0
    # KL of two Bernoulli distributions, by its formula
    p, q = 0.880797, 0.890903
    by_hand = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert Comparison.of(logits[:, :1], logits[:, :1] + 0.1, many).distance == pytest.approx(by_hand, rel=1e-3)


def test_a_nan_passes_no_gate() -> None:
    broken = Comparison.of(np.ones((2, 3), np.float32), np.full((2, 3), np.nan, np.float32), EMBED)
    gate = fidelity_gate("float16", {})
    assert not broken.distance <= gate.distance
    assert not broken.worst <= gate.error


def test_gates_follow_the_references_own_noise() -> None:
    quiet = fidelity_gate("int8-dynamic", {"distance": 0.0, "largest_error": 0.0, "agreement": 1.0})
    loud = fidelity_gate("int8-dynamic", {"distance": 0.01, "largest_error": 0.3, "agreement": 0.9})
    assert (quiet.distance, quiet.error, quiet.agreement) == (1e-3, 0.1, 0.95)
    assert loud.distance == pytest.approx(0.0125)
    assert loud.error == pytest.approx(0.45)
    assert loud.agreement == pytest.approx(0.85)


def golden(directory: Path) -> Path:
    """Golden files of two texts."""
    facts = Comparison.of(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), EMBED).figures()
    known = {f"quality_{key}": value for key, value in facts.items()} | {"noise": facts, "float_distance": 0.0}
    write_facts(
        directory,
        {"head": to_json(EMBED), "texts": ["a", "b"], "weight_digests": {}, "original": {}, "float": known},
    )
    ids, lengths = np.array([[2, 3], [2, 0]], np.int32), np.array([2, 1], np.int32)
    write_answers(directory, "float", ids, lengths, np.eye(2, dtype=np.float32))
    return directory


def test_golden_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    standard = read_standard(golden(tmp_path), RECIPES["int8"], "float16")
    assert standard.ids == [[2, 3], [2]]
    assert standard.head == EMBED
    assert (standard.answers == np.eye(2)).all()


@pytest.mark.parametrize("lost", ["texts", "original", "weight_digests", "head", "float"])
def test_golden_files_that_lack_something_are_damaged(tmp_path: Path, lost: str) -> None:
    facts = json.loads((golden(tmp_path) / "golden.json").read_text())
    (tmp_path / "golden.json").write_text(json.dumps({key: value for key, value in facts.items() if key != lost}))
    with pytest.raises(BadArtifact, match="golden files"):
        read_standard(tmp_path, RECIPES["int8"], "float16")
    (tmp_path / "golden.json").write_text(json.dumps(facts | {"texts": ["a"]}))
    with pytest.raises(BadArtifact, match="1 texts and the ids of 2"):
        read_standard(tmp_path, RECIPES["int8"], "float16")


def test_every_recipe_has_a_gate_and_mixtures_have_none() -> None:
    from dataclasses import replace

    assert {quality_gate(recipe).distance for recipe in RECIPES.values()}
    with pytest.raises(UsageError, match="no quality gate"):
        quality_gate(replace(RECIPES["int4"], name="mixed-9mb"))


def test_sizes_under_distilberts_names() -> None:
    sizes = {"dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "vocab_size": 30522}
    without_gate = (6 * (4 * 768 * 768 + 2 * 768 * 3072), 30522 * 768)
    assert parameters_of({**sizes, "model_type": "distilbert"}) == without_gate
    with pytest.raises(KeyError):
        parameters_of({"vocab_size": 3})


def test_a_head_for_answers_tells_question_and_passage_apart_as_its_tokenizer_does(tmp_path: Path) -> None:
    config = {**CONFIG, "architectures": ["BertForQuestionAnswering"], "type_vocab_size": 2}
    assert head_of_checkpoint(tmp_path / "a", config) == Head(task="answer", size=2, longest_tokens=512, separator_id=3)
    assert head_of_checkpoint(tmp_path / "b", {**config, "type_vocab_size": 1}).separator_id == -1


def test_an_answer_is_the_likeliest_span_of_the_passage(tmp_path: Path) -> None:
    """It never lies in the question, never ends before it begins, and is written as the passage writes it."""
    write_tokenizer(tmp_path / "t")
    head = Head(task="answer", size=2, longest_tokens=64)
    pair = ShippedTokenizer(tmp_path / "t").encode_pair("the moon", "The Moon of WATER and the moon")
    begins, ends = np.zeros((2, len(pair.ids)), np.float32)
    first, last = pair.parts.index(1) + 1, pair.parts.index(1) + 3
    begins[[1, first, last + 2]], ends[[2, last, first - 1]] = (9.0, 5.0, 4.0), (9.0, 5.0, 6.0)
    row = settled(np.concatenate([begins, ends]), len(pair.ids), 64, head)
    assert row.shape == (128,)
    words, share = best_span(row, pair)
    assert words == "Moon of WATER"
    assert 0.2 < share < 1.0


def test_padding_behind_an_answer_counts_for_nothing() -> None:
    head = Head(task="answer", size=2, longest_tokens=8)
    numbers = np.arange(12, dtype=np.float32)
    row = settled(numbers, 3, 8, head)
    assert row.reshape(2, 8)[:, :3].tolist() == [[0, 1, 2], [6, 7, 8]]
    same = Comparison.of(row[None], row[None] + np.where(row > -1.0, 0.5, 0.0)[None].astype(np.float32), head)
    assert same.worst == pytest.approx(0.5 / 8.0)  # in parts of the largest number, which no hidden one is
    assert (same.distance, same.agreement) == (pytest.approx(0.0, abs=1e-6), 1.0)


class Answering:
    """A runtime for which every answer begins and ends at one place."""

    name = "answering"

    def __init__(self, place: int) -> None:
        self.place = place

    def encode(self, ids: Sequence[int], mask: Sequence[int]) -> Any:
        row = np.zeros((2, len(ids)), np.float32)
        row[:, self.place] = 20.0
        return row.reshape(-1)

    def close(self) -> None: ...


def test_questions_need_a_passage_and_passages_must_fit(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "t")
    head = Head(task="answer", size=2, longest_tokens=64)
    engine = TextEncoder(Answering(5), tmp_path / "t", 16)
    read = engine.read(["the moon", "the water"], head)
    assert list(read.labels) == ["water"]
    assert read.labels["water"] > 0.99
    with pytest.raises(UsageError, match="Give both"):
        engine.read("the moon", head)
    with pytest.raises(UsageError, match="Give both"):
        engine.read(["the moon", "the water"], EMBED)
    with pytest.raises(UsageError, match="tokens, the package was built for 16"):
        engine.read(["the moon", "water " * 20], head)


NAMES = Head(task="tag", size=4, longest_tokens=64, labels=("O", "B-PER", "I-PER", "LOC"))


def tagged(directory: Path, text: str, labels: Mapping[str, int]) -> list[tuple[str, str]]:
    """Words and labels of the tags of a text, each token given the label that `labels` has for its piece."""
    write_tokenizer(directory / "t")
    placed = ShippedTokenizer(directory / "t").encode_placed(text)
    logits = np.zeros((len(placed.ids), 4), np.float32)
    for row, token in zip(logits, placed.ids, strict=True):
        row[labels.get(vocabulary()[token], 0)] = 5.0
    found = tags_of(settled(logits.reshape(-1), len(placed.ids), 64, NAMES), placed, NAMES)
    assert all(text[one.begin : one.end] == one.text and 0.9 < one.share < 1.0 for one in found)
    return [(one.text, one.label) for one in found]


def test_words_with_one_label_are_one_tag_and_another_begins_where_b_says_so(tmp_path: Path) -> None:
    labels = {"moon": 1, "water": 2, "a": 3, "[CLS]": 3}
    expected = [("Moon WATER", "PER"), ("moon", "PER"), ("water", "PER"), ("A a", "LOC")]
    assert tagged(tmp_path, "Moon WATER moon, water A a b.", labels) == expected


def test_a_word_has_the_label_of_its_first_token(tmp_path: Path) -> None:
    assert tagged(tmp_path, "of moons and smoon", {"moon": 1, "##s": 3, "##m": 3}) == [("moons", "PER")]


def test_figures_of_tags_count_tokens_and_not_what_is_hidden() -> None:
    logits = np.eye(4, dtype=np.float32)[[1, 1, 2, 0]]
    one = settled(logits.reshape(-1), 4, 9, NAMES)[None]
    other = settled(logits[[1, 0, 2, 1]].reshape(-1), 4, 9, NAMES)[None]  # the last of four differs
    assert one.shape == (1, 36)
    assert Comparison.of(one, other, NAMES).agreement == 0.75
    assert Comparison.of(one, one, NAMES).figures()["distance"] == pytest.approx(0.0, abs=1e-6)
    whole = Comparison.of(logits.reshape(1, -1), logits[[1, 0, 2, 1]].reshape(1, -1), NAMES)
    assert Comparison.of(one, other, NAMES).distance == pytest.approx(whole.distance)


def test_tags_need_a_row_for_every_token(tmp_path: Path) -> None:
    class Labelling:
        name = "labelling"

        def __init__(self, rows: int) -> None:
            self.rows = rows

        def encode(self, ids: object, mask: object) -> Any:
            return np.tile(np.array([0.0, 9.0, 0.0, 0.0], np.float32), self.rows)

        def close(self) -> None: ...

    write_tokenizer(tmp_path / "t")
    read = TextEncoder(Labelling(8), tmp_path / "t", 8).read("the moon", NAMES)
    assert [(one.text, one.label) for one in read.tags or ()] == [("the", "PER"), ("moon", "PER")]
    assert (len(read.values), read.tokens) == (32, 4)
    with pytest.raises(BadArtifact, match="12 numbers"):
        TextEncoder(Labelling(3), tmp_path / "t", 8).read("the moon", NAMES)
