"""OpenELM's modules are our own: held against the formulas of the paper (arXiv:2404.14619), written in NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kobako.pipeline.contracts import Reference, no_progress
from kobako.pipeline.errors import IntegrityError, KobakoError, UnsupportedModel

from tests.conftest import write_tiny_tokenizer

pytestmark = pytest.mark.heavy

Array = npt.NDArray[np.float64]
CONFIG: dict[str, Any] = {
    "model_type": "openelm", "architectures": ["OpenELMForCausalLM"], "auto_map": {"AutoModelForCausalLM": "m.OpenELM"},
    "activation_fn_name": "swish", "bos_token_id": 1, "eos_token_id": 2, "ffn_dim_divisor": 16, "ffn_with_glu": True,
    "ffn_multipliers": [0.5, 1.3, 4.0], "head_dim": 8, "max_context_length": 512, "model_dim": 40,
    "normalization_layer_name": "rms_norm", "normalize_qk_projections": True, "num_gqa_groups": 2,
    "num_kv_heads": [1, 2, 3], "num_query_heads": [2, 4, 6], "num_transformer_layers": 3, "rope_freq_constant": 10000,
    "rope_max_length": 1024, "share_input_output_layers": True, "vocab_size": 384,
}  # fmt: skip
WIDTHS = (32, 48, 160)  # 0.5 · 40 = 20, whose nearest multiple of 16 is more than 10 % less; 1.3 · 40 = 52; 4 · 40


def tensors_of(config: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    """Random weights under the published names."""
    random, model, dim = np.random.default_rng(0), config["model_dim"], config["head_dim"]

    def matrix(rows: int, columns: int) -> npt.NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * 1.5 / columns**0.5).astype(np.float32)

    def norm(size: int) -> npt.NDArray[np.float32]:
        return random.uniform(0.5, 1.5, size).astype(np.float32)

    made = {"transformer.token_embeddings.weight": matrix(384, model), "transformer.norm.weight": norm(model)}
    for layer, (heads, shared, width) in enumerate(zip([2, 4, 6], [1, 2, 3], WIDTHS, strict=True)):
        home = f"transformer.layers.{layer}"
        made |= {
            f"{home}.attn.qkv_proj.weight": matrix((heads + 2 * shared) * dim, model),
            f"{home}.attn.out_proj.weight": matrix(model, heads * dim),
            f"{home}.ffn.proj_1.weight": matrix(2 * width, model), f"{home}.ffn.proj_2.weight": matrix(model, width),
            f"{home}.attn_norm.weight": norm(model), f"{home}.ffn_norm.weight": norm(model),
        }  # fmt: skip
        if config["normalize_qk_projections"]:
            made |= {f"{home}.attn.{one}_norm.weight": norm(dim) for one in "qk"}
    if not config["share_input_output_layers"]:
        made["lm_head.weight"] = matrix(384, model)
    return made


def by_the_paper(config: dict[str, Any], tensors: dict[str, Any], ids: npt.NDArray[np.int64]) -> Array:
    """Logits ``[T, V]``, token by token and head by head."""

    def rms(x: Array, name: str) -> Array:
        return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * tensors[f"{name}.weight"])

    def turned(x: Array, position: int) -> Array:
        """Pairs (i, i + D/2) turned by position · 10000^(−2i/D)."""
        half = len(x) // 2
        angle = position * float(config["rope_freq_constant"]) ** (-np.arange(half) / half)
        one, two = x[:half], x[half:]
        return np.concatenate([one * np.cos(angle) - two * np.sin(angle), two * np.cos(angle) + one * np.sin(angle)])

    table, dim = tensors["transformer.token_embeddings.weight"].astype(np.float64), config["head_dim"]
    x = table[ids]
    for layer, (heads, shared) in enumerate(zip(config["num_query_heads"], config["num_kv_heads"], strict=True)):
        home = f"transformer.layers.{layer}"
        rows = (rms(x, f"{home}.attn_norm") @ tensors[f"{home}.attn.qkv_proj.weight"].T).reshape(len(ids), -1, dim)
        queries, keys, values = rows[:, :heads], rows[:, heads : heads + shared], rows[:, heads + shared :]
        if config["normalize_qk_projections"]:
            queries, keys = rms(queries, f"{home}.attn.q_norm"), rms(keys, f"{home}.attn.k_norm")
        mixed = np.zeros((len(ids), heads, dim))
        for head in range(heads):
            own = head // (heads // shared)
            places = [turned(keys[place, own], place) for place in range(len(ids))]
            for token in range(len(ids)):
                query = turned(queries[token, head], token)
                scores = np.array([query @ key for key in places[: token + 1]]) / dim**0.5
                weights = np.exp(scores - scores.max())
                mixed[token, head] = weights / weights.sum() @ values[: token + 1, own]
        x = x + mixed.reshape(len(ids), -1) @ tensors[f"{home}.attn.out_proj.weight"].T
        gate, up = np.split(rms(x, f"{home}.ffn_norm") @ tensors[f"{home}.ffn.proj_1.weight"].T, 2, axis=-1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ tensors[f"{home}.ffn.proj_2.weight"].T
    return np.asarray(rms(x, "transformer.norm") @ tensors.get("lm_head.weight", table).T)


def loaded(home: Path, config: dict[str, Any], tensors: dict[str, Any], *, tokenizer: bool = True) -> Reference:
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load
    from safetensors.numpy import save_file

    model = home / "openelm"
    if tokenizer:
        write_tiny_tokenizer(model)
    else:
        model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    save_file(tensors, model / "model.safetensors")
    (home / "reference").mkdir()
    return load(fetch(parse(str(model)), home / "downloads", no_progress), home / "reference")


@pytest.mark.parametrize("change", [{}, {"share_input_output_layers": False, "normalize_qk_projections": False}])
def test_it_computes_what_the_paper_says(tmp_path: Path, change: dict[str, Any]) -> None:
    import torch
    from kobako.pipeline.reference.model import reference_model

    config, ids = CONFIG | change, np.arange(3, 40) * 7 % 384
    tensors = tensors_of(config)
    expected = by_the_paper(config, tensors, ids)
    with torch.no_grad():
        found = reference_model(loaded(tmp_path, config, tensors))(torch.from_numpy(ids)[None]).logits[0].numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"num_query_heads": [2, 6, 6]},
            IntegrityError,
            r"layers\.1\.attn\.qkv_proj\.weight has shape \(64, 40\)",
        ),
        ({"ffn_multipliers": [0.5, 1.3, 2.0]}, IntegrityError, r"layers\.2\.ffn\.proj_2\.weight .* \(40, 80\)"),
        ({"num_kv_heads": [1, 2]}, UnsupportedModel, "does not list .* of all 3 layers"),
        ({"ffn_with_glu": False}, UnsupportedModel, "ffn_with_glu False"),
        ({"activation_fn_name": "gelu"}, UnsupportedModel, "activation_fn_name 'gelu'"),
    ],
)
def test_what_contradicts_the_weights_or_is_not_known_is_refused(
    tmp_path: Path, change: dict[str, Any], error: type[KobakoError], words: str
) -> None:
    with pytest.raises(error, match=words):
        loaded(tmp_path, CONFIG | change, tensors_of(CONFIG))


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"uses the tokenizer of Llama 2 .*tokenizer\.json and tokenizer_config"):
        loaded(tmp_path, CONFIG, tensors_of(CONFIG), tokenizer=False)


def test_a_plan_counts_every_layers_own_heads() -> None:
    from kobako.pipeline import families
    from kobako.pipeline.estimate import parameters_of

    rewrite = families.get("openelm").rewrite
    assert rewrite is not None
    matrices = {name: value.size for name, value in tensors_of(CONFIG).items() if value.ndim == 2}
    table = matrices.pop("transformer.token_embeddings.weight")
    assert parameters_of(rewrite(CONFIG)) == (sum(matrices.values()), table)
