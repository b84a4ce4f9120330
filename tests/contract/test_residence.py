"""Models whose weights lie outside memory say what models in memory say, bit for bit."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.reference import residence
from kobako.pipeline.reference.residence import EVERYTHING, Budget

from tests import encoders, seq2seq
from tests.conftest import write_tiny_tokenizer
from tests.contract.test_per_layer import load_reference, logits_of, write_checkpoint
from tests.families import SHAPES, make

pytestmark = pytest.mark.heavy

NOTHING = Budget(0.0, 0.0)
KINDS = ("llama", "gpt2", "gemma3n_text", "gemma4_text")
CHOSEN = [next(shape for shape in SHAPES if shape.model_type == kind) for kind in KINDS]


@pytest.fixture(params=["whole", "in parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With matrices that are multiplied whole, and with all of them in parts of 64 rows."""
    if request.param == "in parts":
        monkeypatch.setattr(residence, "WHOLE_BYTES", 0)
        monkeypatch.setattr(residence, "PART_BYTES", 0)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("shape", CHOSEN, ids=KINDS)
def test_the_original_is_the_same_wherever_its_weights_lie(shape: Any, tmp_path: Path) -> None:
    from kobako.pipeline.reference.model import reference_model

    write_checkpoint(tmp_path / "model", shape)
    reference = load_reference(tmp_path / "model", tmp_path)
    inside, outside = reference_model(reference), reference_model(reference, budget=NOTHING)
    assert not inside.residence.outside
    assert outside.residence.outside
    assert np.array_equal(logits_of(inside), logits_of(outside))
    assert np.array_equal(logits_of(inside), logits_of(outside))  # and again, after everything was dropped


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("recipe", ["int4", "int4-small"])
@pytest.mark.parametrize("shape", CHOSEN, ids=KINDS)
def test_the_quantized_reference_is_the_same_wherever_its_weights_lie(shape: Any, recipe: str, tmp_path: Path) -> None:
    from kobako.pipeline.reference.eager import dynamic_int8_activations, quantized_model

    quantized = make(tmp_path, shape, recipe, write_tiny_tokenizer)
    inside, outside = quantized_model(quantized), quantized_model(quantized, budget=NOTHING)
    assert outside.residence.outside
    assert np.array_equal(logits_of(inside), logits_of(outside))
    with dynamic_int8_activations(inside), dynamic_int8_activations(outside):
        assert np.array_equal(logits_of(inside), logits_of(outside))


@pytest.mark.parametrize("shape", encoders.SHAPES[:2], ids=lambda shape: shape.name)
def test_so_is_an_encoder(shape: Any, tmp_path: Path) -> None:
    import torch
    from kobako.pipeline.reference.eager import quantized_model

    quantized = encoders.make(tmp_path, shape, "int4")
    ids = torch.arange(3, 40)[None]
    said = []
    for budget in (EVERYTHING, NOTHING):
        with torch.no_grad():
            found = quantized_model(quantized, budget=budget)(input_ids=ids, attention_mask=torch.ones_like(ids))
        said.append(found[0].numpy())
    assert np.array_equal(*said)


def test_so_is_an_encoder_decoder(tmp_path: Path) -> None:
    import torch
    from kobako.pipeline.reference.eager import quantized_model

    quantized = seq2seq.make(tmp_path, seq2seq.SHAPES[0], "int4", write_tiny_tokenizer)
    ids = torch.arange(3, 40)[None]
    said = []
    for budget in (EVERYTHING, NOTHING):
        with torch.no_grad():
            model = quantized_model(quantized, budget=budget)
            said.append(model(input_ids=ids, decoder_input_ids=ids[:, :9], use_cache=False).logits.numpy())
    assert np.array_equal(*said)


def test_a_model_that_nobody_holds_is_gone_at_once(tmp_path: Path) -> None:
    """The next one could not be afforded beside it."""
    from kobako.pipeline.reference.eager import quantized_model

    model = quantized_model(make(tmp_path, CHOSEN[0], "int4-small", write_tiny_tokenizer), budget=NOTHING)
    logits_of(model)
    parameter = weakref.ref(model.model.norm.weight)
    gc.disable()
    try:
        del model
        assert parameter() is None
    finally:
        gc.enable()
