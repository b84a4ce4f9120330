"""Encoder-decoders: the two functions that targets export are transformers' own model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline import families
from kobako.pipeline.contracts import RECIPES, Exported, Rounding, no_progress
from kobako.pipeline.errors import IntegrityError, UnsupportedModel, UnsupportedRecipe, UsageError
from kobako.pipeline.kvcache import cache_shapes
from kobako.pipeline.reference.eager import empty_seq2seq, quantized_model
from kobako.pipeline.reference.positions import refit
from kobako.pipeline.reference.seq2seq import Continues, Reads, state_shape
from kobako.pipeline.seq2seq.limits import check_recipe
from kobako.pipeline.seq2seq.runtime import Seq2SeqRuntime
from kobako.pipeline.seq2seq.tasks import own_tasks, tasks_of
from kobako.pipeline.tasks import build_prompt, fields_for
from kobako.pipeline.tokens import ShippedTokenizer
from kobako.pipeline.weights import stored_bytes_by_part

from tests.seq2seq import CONTEXT, SHAPES, Shape, config_of, make, write_checkpoint, write_tokenizer


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_the_two_functions_are_the_model(shape: Shape, tmp_path: Path) -> None:
    import torch

    quantized = make(tmp_path / "q", shape, "float16", write_tokenizer)
    family = families.get(shape.model_type)
    ids = torch.arange(3, 40)[None] * 7 % 384
    answer = torch.arange(5, 45)[None] * 11 % 384
    with torch.inference_mode():
        expected = quantized_model(quantized)(input_ids=ids, decoder_input_ids=answer, use_cache=False).logits[0]
        model = quantized_model(quantized)
        refit(model, CONTEXT, torch.int64)
        mask = torch.ones_like(ids)
        cross = Reads(model, family)(ids, mask)
        own = tuple(torch.zeros(state_shape(model, CONTEXT)) for _ in cross)
        step = Continues(model, family)
        for position in range(answer.shape[1]):
            token = answer[:, position : position + 1]
            logits, *rest = step(token, torch.tensor([position]), mask, *cross, *own)
            own = tuple(rest)
            assert torch.allclose(logits[0], expected[position], atol=2e-4), position


@pytest.fixture
def tokenizer(tmp_path: Path) -> ShippedTokenizer:
    write_tokenizer(tmp_path)
    return ShippedTokenizer(tmp_path)


def test_tasks_are_those_the_architecture_was_trained_with(tokenizer: ShippedTokenizer) -> None:
    assert own_tasks("llama", tokenizer) is None
    assert list(tasks_of("t5", tokenizer)) == ["summarize", "translate"]
    assert tasks_of("marian", tokenizer)["translate"].prompt == "{text}"
    for name in ("t5gemma", "t5gemma2"):
        assert list(tasks_of(name, tokenizer)) == ["complete", "translate"]
    task = tasks_of("m2m_100", tokenizer)["translate"]
    assert task.languages == ("de", "en", "fr", "ja")
    assert build_prompt(task, tokenizer, fields_for(task, "Hi {target}", "fr")) == "__en__Hi {target}</s>__fr__"
    assert build_prompt(task, tokenizer, fields_for(task, "Hi", "fr", "ja")) == "__ja__Hi</s>__fr__"
    with pytest.raises(UsageError, match="source language"):
        fields_for(task, "Hi", "fr", "xx")


def test_a_translator_that_names_no_language_is_refused(tokenizer: ShippedTokenizer) -> None:
    path = tokenizer.directory / "tokenizer.json"
    path.write_text(path.read_text().replace("__", "=="))
    with pytest.raises(UnsupportedModel, match="names a language"):
        tasks_of("m2m_100", ShippedTokenizer(tokenizer.directory))


@pytest.mark.parametrize("effort", ["gptq", "tuned"])
def test_recipes_that_calibrate_layer_by_layer_are_refused(effort: Rounding) -> None:
    with pytest.raises(UnsupportedRecipe, match="layer by layer"):
        check_recipe({"model_type": "t5"}, replace(RECIPES["int4"], rounding=effort))


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_caches_are_counted_as_the_model_has_them(shape: Shape) -> None:
    config = config_of(shape)
    model = empty_seq2seq(config)
    _, heads, _, depth = state_shape(model, 1)
    layers = len(model.get_submodule(families.get(shape.model_type).layers))
    assert cache_shapes(config.to_dict()) == ((heads, depth, depth),) * (2 * layers)  # of the source, of the answer


def test_a_bias_of_logits_is_no_matrix(tmp_path: Path) -> None:
    """Marian's is ``[1, V]`` and belongs to no layer: a package's table of sizes counts it among the biases."""
    marian = make(tmp_path / "q", next(one for one in SHAPES if one.name == "marian"), "float16", write_tokenizer)
    assert stored_bytes_by_part(marian.directory)["norms and biases"] > 384 * 4


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_an_undescribed_side_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"{name} does not describe encoder and decoder"):
        families.get(name).rewrite({"model_type": name, "decoder": {}})  # type: ignore[misc]


def test_a_window_that_holds_every_source_is_none() -> None:
    """T5Gemma's reaches as far to each side as T5Gemma 2's does to both together."""
    import torch

    for name, window in (("t5gemma", 5), ("t5gemma2", 11)):
        for tokens, left in ((6, None), (7, window)):
            model = empty_seq2seq(config_of(next(one for one in SHAPES if one.name == name)))
            refit(model, tokens, torch.int64)
            assert model.get_encoder().config.sliding_window == left, (name, tokens)


@pytest.mark.parametrize(("rows", "words"), [(None, "has no tensor"), (383, "has 383 rows")])
def test_the_table_of_each_side_is_looked_at(tmp_path: Path, rows: int | None, words: str) -> None:
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load
    from safetensors.numpy import load_file, save_file

    home = write_checkpoint(tmp_path / "tiny", next(one for one in SHAPES if one.name == "t5gemma"))
    tensors = load_file(home / "model.safetensors")
    table = tensors.pop("model.encoder.embed_tokens.weight")
    kept = {} if rows is None else {"model.encoder.embed_tokens.weight": table[:rows]}
    save_file(tensors | kept, home / "model.safetensors")
    (tmp_path / "out").mkdir()
    with pytest.raises(IntegrityError, match=r"model\.encoder\.embed_tokens\.weight") as found:
        load(fetch(parse(str(home)), tmp_path / "downloads", no_progress), tmp_path / "out")
    assert words in str(found.value)


def test_the_token_behind_a_source_begins_the_answer() -> None:
    class Steps:
        """Remembers what it was given."""

        name = "steps"

        def __init__(self) -> None:
            self.source: list[int] = []
            self.answer: list[tuple[int, int]] = []

        def read(self, ids: Any, mask: Any) -> None:
            self.source, self.answer = list(ids), []

        def step(self, token: int, position: int) -> Any:
            self.answer.append((token, position))
            return np.arange(9, dtype=np.float32)

        def close(self) -> None: ...

    details = {"begin_ids": [2], "stop_ids": [2], "never_ids": [8], "languages": True}
    exported = Exported(
        target="x", directory=Path(), files=(), activations="float32", context_tokens=16, kind="seq2seq",
        details=details,
    )  # fmt: skip
    steps = Steps()
    runtime = Seq2SeqRuntime(steps, exported)
    assert runtime.feed([4, 7, 2, 5]).argmax() == 7  # 8 is never said
    assert (steps.source, steps.answer) == ([4, 7, 2], [(2, 0), (5, 1)])
    runtime.feed([6])
    assert steps.answer[-1] == (6, 2)
    plain = Seq2SeqRuntime(steps, replace(exported, details={**details, "languages": False}))
    plain.feed([4, 7, 2, 5])
    assert (steps.source, steps.answer) == ([4, 7, 2, 5], [(2, 0)])


def test_recipes_that_calibrate_are_refused_before_any_work() -> None:
    for name in ("int4", "int4-small"):
        with pytest.raises(UnsupportedRecipe, match="encoder-decoder"):
            check_recipe({"model_type": "t5"}, RECIPES[name])
        check_recipe({"model_type": "llama"}, RECIPES[name])
    for name in ("float16", "int8", "int4-nearest"):
        check_recipe({"model_type": "t5"}, RECIPES[name])


def test_checkpoints_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    import torch
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load
    from kobako.pipeline.reference.model import reference_model
    from transformers import AutoModelForSeq2SeqLM

    for shape in SHAPES:
        home = write_checkpoint(tmp_path / shape.name, shape)
        out = tmp_path / f"{shape.name}-reference"
        out.mkdir()
        ours = reference_model(load(fetch(parse(str(home)), tmp_path / "downloads", no_progress), out))
        theirs = AutoModelForSeq2SeqLM.from_pretrained(home).eval()
        ids, answer = torch.tensor([[5, 9, 2]]), torch.tensor([[0, 7, 8]])
        with torch.inference_mode():
            pair = [one(input_ids=ids, decoder_input_ids=answer).logits for one in (ours, theirs)]
        assert torch.allclose(*pair, atol=1e-4), shape.name


def test_what_is_missing_of_a_tokenizer_is_told(tmp_path: Path) -> None:
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load

    home = write_checkpoint(tmp_path / "marian", next(one for one in SHAPES if one.name == "marian"))
    (home / "tokenizer.json").rename(home / "source.spm")
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsupportedModel, match=r"source\.spm"):
        load(fetch(parse(str(home)), tmp_path / "downloads", no_progress), tmp_path / "out")
