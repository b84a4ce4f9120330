"""What a build will need, for models whose largest part is a table that hardly anybody holds."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
from kobako.pipeline.contracts import RECIPES
from kobako.pipeline.estimate import Estimate, estimate, jobs_that_fit, parameters_of, weights_bytes

from tests import families as decoders
from tests import seq2seq

E2B = {
    "hidden_size": 2048, "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256,
    "intermediate_size": [8192] * 30, "vocab_size": 262400, "hidden_size_per_layer_input": 256,
    "vocab_size_per_layer_input": 262144,
}  # fmt: skip
TABLE = 262144 * 30 * 256


def test_a_table_counts_as_bytes_but_not_as_memory() -> None:
    without = {**E2B, "hidden_size_per_layer_input": 0}
    for name in ("int8", "int4", "int4-small"):
        recipe = RECIPES[name]
        codes = TABLE * recipe.embedding_bits // 8
        assert weights_bytes(E2B, recipe) - weights_bytes(without, recipe) == codes
        need, less = (estimate(config, recipe, ["litert", "executorch"]).rss_bytes for config in (E2B, without))
        assert need == less


@pytest.mark.parametrize(
    ("jobs", "limit_gb", "fitting"),
    [(4, 100, 4), (4, 9.9, 3), (4, 7.1, 2), (4, 6.9, 1), (2, 100, 2), (1, 100, 1), (8, 0.1, 1)],
)
def test_side_by_side_runs_only_what_fits_together(jobs: int, limit_gb: float, fitting: int) -> None:
    sizes = {"load": 90.0, "expect": 3.0, "coreml": 4.0, "litert": 2.0, "executorch": 1.0}
    need = Estimate(
        parameters=1, rss_bytes={name: int(size * 1e9) for name, size in sizes.items()}, weights_bytes=1, disk_bytes=1
    )
    stages = ("expect", "executorch", "coreml", "litert")
    assert jobs_that_fit(need, stages, jobs, int(limit_gb * 1e9)) == fitting


def test_widths_of_layers_may_differ() -> None:
    halves = {**E2B, "intermediate_size": [4096] * 15 + [12288] * 15}
    assert parameters_of(halves) == parameters_of(E2B)
    assert parameters_of({**E2B, "intermediate_size": 8192}) == parameters_of(E2B)


def test_wider_codes_take_more() -> None:
    recipe = RECIPES["int8"]
    assert weights_bytes(E2B, replace(recipe, embedding_bits=16)) > weights_bytes(E2B, recipe)


COUNTED = ("llama", "qwen3", "gemma3_text", "openelm", "minicpm3")
SHAPES = [*(shape for shape in decoders.SHAPES if shape.model_type in COUNTED), *seq2seq.SHAPES]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.model_type)
def test_what_config_json_says_is_what_the_model_has(shape: decoders.Shape | seq2seq.Shape) -> None:
    from kobako.pipeline import families
    from kobako.pipeline.reference.eager import empty_model, empty_seq2seq
    from kobako.pipeline.scheme import parameter_roles

    make = seq2seq if isinstance(shape, seq2seq.Shape) else decoders
    config = make.config_of(shape)
    config.tie_word_embeddings = shape.options.get("tie_word_embeddings", True)
    model = empty_seq2seq(config) if make is seq2seq else empty_model(config)
    sizes = {name: prod(value.shape) for name, value in model.named_parameters()}
    roles = parameter_roles(model, families.get(shape.model_type))
    linear = sum(sizes[name] for name, role in roles.items() if role in ("linear", "fine"))
    tables = sum(sizes[name] for name, role in roles.items() if role == "embedding")
    assert parameters_of(config.to_dict() | {"tie_word_embeddings": config.tie_word_embeddings}) == (linear, tables)
