"""The GGUF reader against files that the gguf library wrote, whole and damaged."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import gguf as library
import numpy as np
import pytest
from gguf_files import byte_level_fields, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kobako.pipeline import families
from kobako.pipeline.contracts import Source, SourceFile
from kobako.pipeline.errors import IntegrityError, KobakoError, UnsupportedModel
from kobako.pipeline.reference import gguf, gguf_config
from kobako.pipeline.reference.load import load
from kobako.pipeline.reference.weights import half_rotated, open_reference

LLAMA = families.get("llama")


def source_of(path: Path) -> Source:
    file = SourceFile(path=path.name, size_bytes=path.stat().st_size, sha256="0" * 64)
    return Source(
        name="m", origin="file", revision="r", directory=path.parent, files=(file,), format="gguf", licence="MIT"
    )


def loaded(path: Path, tmp_path: Path) -> Any:
    out = tmp_path / "reference"
    out.mkdir()
    return load(source_of(path), out)


def test_the_header_says_what_the_library_says(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, byte_level_fields(), quantization="Q4_1")
    mine, theirs = gguf.read_header(path), library.GGUFReader(path)
    for name, entry in theirs.fields.items():
        if not name.startswith("GGUF."):
            assert mine.metadata[name] == entry.contents(), name
    assert set(mine.tensors) == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        found = mine.tensors[tensor.name]
        assert (found.offset, found.size_bytes) == (tensor.data_offset, tensor.n_bytes)
        assert list(reversed(found.shape)) == tensor.shape.tolist()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q5_1"])
def test_values_are_the_librarys(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "CHUNK_VALUES", 1000)  # several pieces per tensor, the last one shorter
    path = tmp_path / "m.gguf"
    write_gguf(path, byte_level_fields(), quantization=kind)
    header = gguf.read_header(path)
    with gguf.mapped(path) as data:
        for tensor in library.GGUFReader(path).tensors:
            expected = library.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            found = gguf.dequantized(data, header.tensors[tensor.name])
            assert found.dtype == np.float32
            assert np.array_equal(found, expected.reshape(found.shape)), tensor.name


def test_half_rotated_undoes_llama_cpps_permutation() -> None:
    heads, dim, inputs = 3, 8, 5
    original = np.arange(heads * dim * inputs, dtype=np.float32).reshape(heads * dim, inputs)
    # llama.cpp's conversion: rows of each head, halves interleaved
    permuted = original.reshape(heads, 2, dim // 2, inputs).swapaxes(1, 2).reshape(heads * dim, inputs)
    assert np.array_equal(half_rotated(permuted, heads), original)
    assert np.array_equal(half_rotated(permuted[:, 0], heads), original[:, 0])


@pytest.mark.parametrize("tied", [True, False])
def test_a_reference_from_gguf(tmp_path: Path, tied: bool) -> None:
    path = tmp_path / "m.gguf"
    values = write_gguf(path, byte_level_fields(), tied=tied)
    reference = loaded(path, tmp_path)
    with open_reference(reference) as tensors:
        assert ("lm_head.weight" in tensors) is not tied
        assert len(tensors) == len(values)
        assert np.array_equal(tensors["model.embed_tokens.weight"], values["token_embd.weight"])
        assert np.array_equal(tensors["model.norm.weight"], values["output_norm.weight"])
        down = tensors["model.layers.1.mlp.down_proj.weight"]
        assert np.array_equal(down, values["blk.1.ffn_down.weight"])
        key = tensors["model.layers.0.self_attn.k_proj.weight"]
        assert np.array_equal(key, half_rotated(values["blk.0.attn_k.weight"], 2))
        assert tensors["model.norm.weight"].flags.writeable


def test_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tokenizer = byte_level_fields()
    write_gguf(path, tokenizer)
    reference = loaded(path, tmp_path)
    config = json.loads((reference.directory / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 100000.0}
    assert (config["head_dim"], config["num_key_value_heads"], config["vocab_size"]) == (
        16, 2, len(tokenizer.tokens)
    )  # fmt: skip
    assert config["tie_word_embeddings"] is True
    generation = json.loads((reference.directory / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2]
    settings_ = json.loads((reference.tokenizer_dir / "tokenizer_config.json").read_text())
    assert "<|im_start|>" in settings_["chat_template"]
    assert settings_["eos_token"] == "<|im_end|>"


def test_linear_rope(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(
        path, byte_level_fields(), metadata={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    )
    header = gguf.read_header(path)
    assert gguf_config.rope(header, 16, lambda name: np.zeros(1, np.float32))["factor"] == 4.0


@pytest.mark.parametrize(("factor", "head_dim"), [(8.0, 128), (32.0, 64)])
def test_llama3_rope_is_recognized_by_its_factors(tmp_path: Path, factor: float, head_dim: int) -> None:
    parameters = {"rope_theta": 500000.0, "factor": factor, **gguf_config.LLAMA3_ROPE}
    factors = gguf_config.llama3_factors(parameters, head_dim)
    assert factors[0] == 1.0
    assert factors[-1] == factor
    path = tmp_path / "m.gguf"
    write_gguf(
        path, byte_level_fields(), metadata={"llama.rope.freq_base": 500000.0}, tensors={"rope_freqs.weight": factors}
    )
    found = gguf_config.rope(gguf.read_header(path), head_dim, lambda name: factors)
    assert found == {"rope_type": "llama3", **parameters}
    with pytest.raises(UnsupportedModel, match="not Llama 3's"):
        gguf_config.rope(gguf.read_header(path), head_dim, lambda name: factors * np.float32(1.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "'yarn'"),
        ({"metadata": {"llama.expert_count": 8}}, "experts"),
        ({"metadata": {"llama.rope.dimension_count": 8, "llama.attention.key_length": 16}}, "a part of each head"),
        ({"metadata": {"llama.attention.sliding_window": 128}}, "sliding window"),
        ({"tensors": {"blk.0.attn_q.bias": np.zeros(64, np.float32)}}, "biases on attn_q only"),
        ({"tensors": {"blk.0.ffn_gate_exps.weight": np.zeros((2, 64), np.float32)}}, "ffn_gate_exps"),
    ],
)
def test_variants_that_cannot_be_exported(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, byte_level_fields(), **change)
    with pytest.raises(UnsupportedModel, match=words):
        loaded(path, tmp_path)


def test_an_architecture_without_a_family(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = library.GGUFWriter(path, "rwkv7")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UnsupportedModel, match="rwkv7"):
        loaded(path, tmp_path)


def test_missing_fields_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, byte_level_fields(), metadata={"llama.block_count": None})
    with pytest.raises(IntegrityError, match=r"llama\.block_count"):
        loaded(path, tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "m.gguf"
    write_gguf(path, byte_level_fields(vocabulary=280))
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.00001, 0.01, 0.5, 0.999])
def test_truncated_files(tmp_path: Path, whole: bytes, share: float) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(IntegrityError, match=r"m\.gguf"):
        gguf.read_header(path)


@pytest.mark.parametrize(
    ("at", "value"), [(0, b"GGML"), (4, struct.pack("<I", 1)), (8, b"\xff" * 8), (16, b"\xff" * 8), (24, b"\xff" * 8)]
)
def test_headers_that_lie(tmp_path: Path, whole: bytes, at: int, value: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(whole[:at] + value + whole[at + len(value) :])
    with pytest.raises(IntegrityError):
        gguf.read_header(path)


@given(at=st.integers(min_value=0, max_value=3000), value=st.integers(min_value=0, max_value=255))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_single_byte_may_be_wrong(tmp_path: Path, whole: bytes, at: int, value: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
    with contextlib.suppress(KobakoError):  # refused in our own words is right; any other exception fails this test
        gguf.read_header(path)
