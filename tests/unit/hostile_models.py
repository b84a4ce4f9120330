"""What a model's makers may hand over besides weights, damaged: tables, settings, packed matrices, adapters.

And lists of models. Subjects as those of `hostile`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from embeddings.conftest import layout_of, values_of
from hypothesis import strategies as st
from mutation import byte_plans, damaged_bytes, damaged_json, json_plans, to_bytes
from packed_files import AWQ_NIBBLES, along_inputs, along_outputs, grid
from subjects import Subject, refused
from tiny_package import write_tokenizer

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
    "compressed-tensors": {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {
            "group_0": {"weights": {"type": "int", "strategy": "group", "group_size": 32, "num_bits": 4}}
        },
    },
}  # fmt: skip
LAYER = "model.layers.0.mlp.up_proj"


def subjects(home: Path) -> list[Subject]:
    """All of them; `home` is a directory to work in."""
    return [
        tables(home / "tables"),
        checkpoints(home / "checkpoints"),
        packed(home / "packed"),
        adapters(home / "adapters"),
        matrices(home / "matrices"),
    ]


def header_of(data: bytes) -> Any:
    """The header of a safetensors file."""
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def with_header(data: bytes, plan: Any) -> bytes:
    """A safetensors file whose header was damaged by node."""
    made = to_bytes(damaged_json(header_of(data), plan))
    return struct.pack("<Q", len(made)) + made + data[8 + int.from_bytes(data[:8], "little") :]


def tables(home: Path) -> Subject:
    """``embeddings.safetensors``: opened, read at both ends; whoever compares the digest never gets other rows."""
    from kobako.pipeline.embeddings import open_table, write_table

    home.mkdir()
    seeds = []
    for bits in (4, 8, 16):
        layout = layout_of(rows=5, layers=2, width=4, bits=bits)
        write_table(home / "valid", layout, [values_of(layout)])
        seeds.append((home / "valid").read_bytes())
    path = home / "embeddings.safetensors"

    def check(data: bytes) -> bool:
        path.write_bytes(data)

        def act() -> None:
            table = open_table(path)
            layout = table.layout
            assert table.data.nbytes <= len(data)
            assert table.rows([0, layout.rows - 1]).shape == (2, layout.layers, layout.width)
            assert refused(lambda: table.rows([layout.rows]))
            table.check_digest()

        return not refused(act)

    plans = st.tuples(st.sampled_from(seeds), byte_plans, json_plans, st.booleans())
    cases = plans.map(lambda case: damaged_bytes(case[0], case[1], 5000) if case[3] else with_header(case[0], case[2]))
    return Subject("embedding tables", cases, check, tuple(seeds))


def checkpoints(home: Path) -> Subject:
    """A checkpoint's settings (config.json, how it is packed, sentence-transformers' modules): read as by ``load``."""
    from kobako.pipeline.reference.load import load

    made = [_decoder(home / "decoder", method) for method in SETTINGS]
    made += [_encoder(home / "embeds", "BertModel"), _encoder(home / "classifies", "BertForSequenceClassification")]
    out = home / "out"
    out.mkdir()

    def check(case: tuple[int, list[tuple[int, Any]]]) -> bool:
        place, files = made[case[0]]
        for index, plan in case[1]:
            name = sorted(files)[index % len(files)]
            (place / name).write_bytes(to_bytes(damaged_json(files[name], plan)))
        try:
            return not refused(lambda: load(_source(place), out))
        finally:
            for name, value in files.items():
                (place / name).write_bytes(to_bytes(value))

    damages = st.lists(st.tuples(st.integers(0, 7), json_plans), min_size=1, max_size=2)
    return Subject("checkpoints", st.tuples(st.integers(0, len(made) - 1), damages), check)


def packed(home: Path) -> Subject:
    """Matrices packed by GPTQ, AWQ or compressed-tensors, with settings that may lie."""
    from kobako.pipeline import families
    from kobako.pipeline.reference.prequantized import packing_of
    from kobako.pipeline.reference.weights import SafetensorsReader
    from safetensors.numpy import save

    home.mkdir()
    seeds = {
        method: save({f"{LAYER}.{name}": value for name, value in _tensors(method).items()}) for method in SETTINGS
    }

    def check(case: tuple[str, Any, Any, bool]) -> bool:
        method, settings, damage, by_bytes = case
        data = seeds[method]
        data = damaged_bytes(data, damage) if by_bytes else with_header(data, damage) if damage else data
        (home / "model.safetensors").write_bytes(data)

        def act() -> None:
            form = packing_of({"quantization_config": damaged_json(SETTINGS[method], settings)})
            reader = SafetensorsReader(_source(home), set(), families.get("llama"), form)
            for name in reader:
                assert reader[name].nbytes <= 64 * len(data)

        return not refused(act)

    some = st.one_of(st.just(()), json_plans)
    cases = st.one_of(
        st.tuples(st.sampled_from(sorted(SETTINGS)), some, byte_plans, st.just(True)),
        st.tuples(st.sampled_from(sorted(SETTINGS)), some, some, st.just(False)),
    )
    return Subject("packed weights", cases, check)


def adapters(home: Path) -> Subject:
    """A LoRA adapter: its settings, which hold regular expressions, and its matrices, merged as the quantizer does."""
    from kobako.pipeline.reference.adapter import Adapted, read_adapter
    from safetensors.numpy import save

    home.mkdir()
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 16, "use_rslora": False, "target_modules": ["up_proj"],
        "alpha_pattern": {r"layers\.\d+\.mlp.up_proj": 8, "q_proj": 4},
    }  # fmt: skip
    halves = {"lora_A.weight": np.ones((2, 8), np.float32), "lora_B.weight": np.ones((4, 2), np.float16)}
    valid = save({f"base_model.model.{LAYER}.{name}": value for name, value in halves.items()})
    base = {f"{LAYER}.weight": np.zeros((4, 8), np.float32)}
    patterns = st.lists(
        st.sampled_from(["(", ")", "a", ".", "*", "+", "?", "|", "{9}", "p", "\\", "[", "]", "$"]), max_size=12
    )

    def check(case: tuple[Any, Any, Any, list[str], bool]) -> bool:
        settings, header, damage, pattern, by_bytes = case
        told = damaged_json(config, settings) if settings else config
        if pattern and isinstance(told, dict) and isinstance(told.get("alpha_pattern"), dict):
            told = told | {"alpha_pattern": {"".join(pattern): 8, **told["alpha_pattern"]}}
        (home / "adapter_config.json").write_bytes(to_bytes(told))
        data = damaged_bytes(valid, damage) if by_bytes else with_header(valid, header) if header else valid
        (home / "adapter_model.safetensors").write_bytes(data)

        def act() -> None:
            merged = Adapted(base, read_adapter(_source(home)))
            for name in merged:
                assert np.isfinite(merged[name]).all()
                assert merged[name].shape == base[name].shape

        return not refused(act)

    some = st.one_of(st.just(()), json_plans)
    return Subject("adapters", st.tuples(some, some, byte_plans, patterns, st.booleans()), check)


def matrices(home: Path) -> Subject:
    """``models.toml``, which `matrix` and CI read: jobs as CI can hand them on, or refused."""
    from kobako.pipeline.contracts import RECIPES
    from kobako.pipeline.matrix import MAX_JOBS, read_matrix

    home.mkdir()
    text = (
        b'[defaults]\ntargets = ["litert"]\ncontext = 512\n[[model]]\nmodel = "smollm2-135m-instruct"\n'
        b'recipes = ["int8", "int4"]\npublish = "hf://me/toy-{recipe}@main"\nmemory_gb = 4\n'
        b'[[model]]\nmodel = "example/other@main"\ntasks = ["chat"]\n'
    )
    path = home / "models.toml"

    def check(data: bytes) -> bool:
        path.write_bytes(data)

        def act() -> None:
            jobs = read_matrix(path)
            assert 0 < len(jobs) <= MAX_JOBS
            assert len({job.name for job in jobs}) == len(jobs)
            for job in jobs:
                assert job.recipe in RECIPES
                assert 64 <= job.context <= 131072
                assert job.memory_bytes >= 0

        return not refused(act)

    return Subject("lists of models", byte_plans.map(lambda plan: damaged_bytes(text, plan)), check, (text,))


def _source(place: Path) -> Any:
    """The files of a directory as a fetched model."""
    from kobako.pipeline.contracts import Source, SourceFile

    files = sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    return Source(
        name="x", origin="x", revision="x", directory=place, format="safetensors", licence="MIT",
        files=tuple(SourceFile(path=name, size_bytes=0, sha256="") for name in files),
    )  # fmt: skip


def _write(place: Path, files: Mapping[str, Any], tensors: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of JSON files and tensors: its directory, and what may be damaged there."""
    from safetensors.numpy import save_file

    write_tokenizer(place)
    save_file(dict(tensors), place / "model.safetensors")
    tokenizer = "tokenizer_config.json"
    whole = {**files, tokenizer: json.loads((place / tokenizer).read_text())}
    for name, value in whole.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(to_bytes(value))
    return place, whole


def _decoder(home: Path, method: str) -> tuple[Path, dict[str, Any]]:
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "tie_word_embeddings": True,
        "eos_token_id": 2, "bos_token_id": 1, "quantization_config": SETTINGS[method],
    }  # fmt: skip
    table = {"model.embed_tokens.weight": np.zeros((64, 64), np.float16)}
    packed_ones = {f"{LAYER}.{name}": value for name, value in _tensors(method).items()}
    home.mkdir(parents=True, exist_ok=True)
    return _write(
        home / method, {"config.json": config, "generation_config.json": {"eos_token_id": [2]}}, table | packed_ones
    )


def _encoder(place: Path, architecture: str) -> tuple[Path, dict[str, Any]]:
    config = {
        "model_type": "bert", "architectures": [architecture], "vocab_size": 64, "hidden_size": 8,
        "max_position_embeddings": 32, "num_hidden_layers": 1, "position_embedding_type": "absolute",
        "id2label": {"0": "no", "1": "yes"}, "num_labels": 2, "problem_type": None,
    }  # fmt: skip
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    files = {
        "config.json": config,
        "modules.json": modules,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
        "sentence_bert_config.json": {"max_seq_length": 16},
    }
    return _write(place, files, {"embeddings.word_embeddings.weight": np.zeros((64, 8), np.float32)})


def _tensors(method: str) -> dict[str, Any]:
    """One packed matrix of 8 outputs and 64 inputs."""
    codes, zeros, scales = grid(8, 64, 32)
    if method == "awq":
        made = {
            "qweight": along_outputs(codes, order=AWQ_NIBBLES), "qzeros": along_outputs(zeros, order=AWQ_NIBBLES),
            "scales": scales,
        }  # fmt: skip
    elif method == "gptq":
        order = (np.arange(64) // 32).astype(np.int32)
        made = {"qweight": along_inputs(codes), "qzeros": along_outputs(zeros), "scales": scales, "g_idx": order}
    else:
        made = {
            "weight_packed": along_outputs(np.ascontiguousarray(codes.T)), "weight_shape": np.array([8, 64]),
            "weight_scale": np.ascontiguousarray(scales.T),
        }  # fmt: skip
    return {f"{LAYER}.{name}": value for name, value in made.items()}
