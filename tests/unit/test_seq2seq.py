"""Encoder-decoders: the two functions that targets export are transformers' own model."""

from __future__ import annotations

from pathlib import Path

import pytest
from kobako.pipeline import families
from kobako.pipeline.reference.eager import quantized_model
from kobako.pipeline.reference.seq2seq import Continues, Reads, refit, state_shape

from tests.conftest import write_tiny_tokenizer
from tests.seq2seq import CONTEXT, SHAPES, Shape, make


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_the_two_functions_are_the_model(shape: Shape, tmp_path: Path) -> None:
    import torch

    quantized = make(tmp_path / "q", shape, "float16", write_tiny_tokenizer)
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
