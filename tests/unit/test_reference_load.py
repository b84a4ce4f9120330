"""Checkpoint directories become References, or are refused in seconds: no torch anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf_files import byte_level_fields, write_gguf
from kobako.pipeline.contracts import Reference, no_progress
from kobako.pipeline.errors import IntegrityError, UnsupportedModel
from kobako.pipeline.fetch import fetch, parse
from kobako.pipeline.reference import gguf, gguf_tokenizer
from kobako.pipeline.reference.load import load
from kobako.pipeline.reference.weights import open_reference
from safetensors.numpy import save_file

CONFIG = {
    "model_type": "llama", "vocab_size": 400, "hidden_size": 8, "tie_word_embeddings": True, "eos_token_id": 0,
    "bos_token_id": 1, "num_attention_heads": 2, "num_hidden_layers": 1,
}  # fmt: skip
EMBEDDING = "model.embed_tokens.weight"
TEMPLATE = "{{ messages[0]['content'] }}<|im_end|>"


def tensors() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {
        EMBEDDING: rng.standard_normal((400, 8)).astype(np.float32),
        "model.norm.weight": np.ones(8, np.float32),
        "lm_head.weight": np.zeros((400, 8), np.float32),
    }


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tokenizer") / "m.gguf"
    write_gguf(path, byte_level_fields())
    return str(gguf_tokenizer.build(gguf.read_header(path)).to_str())


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer_json: str) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    write(directory, "config.json", CONFIG)
    (directory / "tokenizer.json").write_text(tokenizer_json)
    write(directory, "tokenizer_config.json", {"eos_token": "<|endoftext|>", "chat_template": TEMPLATE})
    save_file(tensors(), directory / "model.safetensors")
    return directory


def write(directory: Path, name: str, value: dict[str, Any]) -> None:
    (directory / name).write_text(json.dumps(value))


def loaded(directory: Path) -> Reference:
    out = directory.parent / "reference"
    out.mkdir()
    return load(fetch(parse(str(directory)), directory.parent / "downloads", no_progress), out)


def read(reference: Reference, name: str) -> Any:
    return json.loads((reference.directory / name).read_text())


def test_what_a_reference_holds(checkpoint: Path) -> None:
    (checkpoint / "LICENSE").write_text("terms")
    (checkpoint / "README.md").write_text("# card")
    reference = loaded(checkpoint)
    files = {str(path.relative_to(reference.directory)) for path in reference.directory.rglob("*") if path.is_file()}
    assert files == {
        "config.json", "generation_config.json", "LICENSE", "README.md",
        "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
    }  # fmt: skip
    assert (reference.name, reference.model_type) == ("model", "llama")


def test_neither_torch_nor_transformers_is_loaded(checkpoint: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kobako.pipeline.fetch import fetch, parse\n"
        "from kobako.pipeline.reference.load import load\n"
        "from kobako.pipeline.reference.weights import open_reference\n"
        "model, root = sys.argv[1], Path(sys.argv[1]).parent; (root / 'out').mkdir()\n"
        "with open_reference(load(fetch(parse(model), root / 'downloads'), root / 'out')) as tensors:\n"
        "    assert [tensors[name].shape for name in tensors]\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", program, str(checkpoint)], check=True, timeout=60)


def test_settings_that_are_no_text_are_kept_as_they_are(checkpoint: Path) -> None:
    """JSON may hold half of a surrogate pair, which no file can hold in UTF-8: it is written as JSON wrote it."""
    odd = "half a pair: \ud800"
    write(checkpoint, "config.json", {**CONFIG, "_name_or_path": odd})
    write(checkpoint, "tokenizer_config.json", {"eos_token": "<|endoftext|>", "chat_template": TEMPLATE, "note": odd})
    reference = loaded(checkpoint)
    assert read(reference, "config.json")["_name_or_path"] == odd
    assert read(reference, "tokenizer/tokenizer_config.json")["eos_token"] == "<|endoftext|>"


@pytest.mark.parametrize("head", [True, False])
def test_an_unsaid_tie_follows_the_files(checkpoint: Path, head: bool) -> None:
    write(checkpoint, "config.json", {key: value for key, value in CONFIG.items() if key != "tie_word_embeddings"})
    values = {name: value for name, value in tensors().items() if head or name != "lm_head.weight"}
    save_file(values, checkpoint / "model.safetensors")
    assert read(loaded(checkpoint), "config.json")["tie_word_embeddings"] is not head


def test_every_stop_id_is_listed(checkpoint: Path) -> None:
    write(checkpoint, "generation_config.json", {"eos_token_id": 0, "temperature": 0.6})
    generation = read(loaded(checkpoint), "generation_config.json")
    assert generation["eos_token_id"] == [0, 2]  # <|im_end|> is what the chat template ends a turn with
    assert generation["temperature"] == 0.6
    assert generation["bos_token_id"] == 1


def test_tokens_become_plain_strings(checkpoint: Path) -> None:
    token = {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False}
    write(checkpoint, "tokenizer_config.json", {"eos_token": token, "tokenizer_class": "LlamaTokenizer"})
    settings = read(loaded(checkpoint), "tokenizer/tokenizer_config.json")
    assert settings["eos_token"] == "<|im_end|>"
    assert settings["bos_token"] == "<|im_start|>"  # from config.json's id
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize("place", ["jinja", "json", "list", "inside"])
def test_the_chat_template_ends_up_inside(checkpoint: Path, place: str) -> None:
    (checkpoint / "tokenizer_config.json").unlink()
    if place == "jinja":
        (checkpoint / "chat_template.jinja").write_text(TEMPLATE)
    elif place == "json":
        write(checkpoint, "chat_template.json", {"chat_template": TEMPLATE})
    else:
        named = [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]
        write(checkpoint, "tokenizer_config.json", {"chat_template": named if place == "list" else TEMPLATE})
    assert read(loaded(checkpoint), "tokenizer/tokenizer_config.json")["chat_template"] == TEMPLATE


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_come_as_float32(checkpoint: Path, kind: Any) -> None:
    expected = {name: value.astype(kind) for name, value in tensors().items()}
    save_file(expected, checkpoint / "model.safetensors")
    with open_reference(loaded(checkpoint)) as found:
        assert set(found) == {EMBEDDING, "model.norm.weight"}  # the tied head is not listed
        assert len(found) == 2
        for name, value in found.items():
            assert value.dtype == np.float32
            assert np.array_equal(value, expected[name].astype(np.float32))


def test_an_untied_head_is_listed(checkpoint: Path) -> None:
    write(checkpoint, "config.json", {**CONFIG, "tie_word_embeddings": False})
    with open_reference(loaded(checkpoint)) as found:
        assert "lm_head.weight" in found


def shard(checkpoint: Path) -> dict[str, str]:
    """Spread the weights over two files; the weight map."""
    (checkpoint / "model.safetensors").unlink()
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    values = tensors()
    save_file({EMBEDDING: values[EMBEDDING]}, checkpoint / names[0])
    save_file({"model.norm.weight": values["model.norm.weight"]}, checkpoint / names[1])
    weight_map = {EMBEDDING: names[0], "model.norm.weight": names[1]}
    write(checkpoint, "model.safetensors.index.json", {"weight_map": weight_map})
    return weight_map


def test_shards(checkpoint: Path) -> None:
    shard(checkpoint)
    with open_reference(loaded(checkpoint)) as found:
        assert np.array_equal(found[EMBEDDING], tensors()[EMBEDDING])
        assert np.array_equal(found["model.norm.weight"], tensors()["model.norm.weight"])


def test_a_missing_shard_is_named(checkpoint: Path) -> None:
    weight_map = shard(checkpoint)
    (checkpoint / weight_map["model.norm.weight"]).unlink()
    with pytest.raises(IntegrityError, match=r"1 of 2 .* model-00002-of-00002\.safetensors"):
        loaded(checkpoint)


def test_memory_is_about_one_tensor(checkpoint: Path) -> None:
    many = {f"model.layers.{n}.x.weight": np.ones((512, 1024), ml_dtypes.bfloat16) for n in range(24)}
    save_file({**tensors(), **many}, checkpoint / "model.safetensors")
    one = 512 * 1024 * 4
    with open_reference(loaded(checkpoint)) as found:
        tracemalloc.start()
        for name in found:
            found[name].sum()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert one <= peak < 3 * one


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def lying_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 7 + b"\x7f" + content[8:])


def lying_offsets(path: Path) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[EMBEDDING]["shape"] = [4000, 8]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncated, lying_header, lying_offsets, empty])
def test_damaged_weights_are_named(checkpoint: Path, damage: Callable[[Path], None]) -> None:
    damage(checkpoint / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        loaded(checkpoint)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model_type": "lama"}, UnsupportedModel, "architecture 'lama'"),
        ({"model_type": None}, UnsupportedModel, "no model_type"),
        ({"model_type": "own", "auto_map": {"AutoModel": "m.M"}}, UnsupportedModel, "Python code of its own"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, UnsupportedModel, "'dynamic'"),
        ({"rope_parameters": {"rope_type": "xpos"}}, UnsupportedModel, "'xpos'"),
        ({"quantization_config": {"quant_method": "gptq"}}, UnsupportedModel, "quantized already .gptq"),
        ({"vocab_size": 401}, IntegrityError, "401"),
    ],
)
def test_configurations_that_are_refused(
    checkpoint: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    write(checkpoint, "config.json", {**CONFIG, **change})
    with pytest.raises(error, match=words):
        loaded(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_scaling": None},
        {"auto_map": {"AutoModelForCausalLM": "m.M"}},  # llama needs none of it
    ],
)
def test_configurations_that_pass(checkpoint: Path, change: dict[str, Any]) -> None:
    write(checkpoint, "config.json", {**CONFIG, **change})
    assert "auto_map" not in read(loaded(checkpoint), "config.json")


def test_a_tokenizer_beyond_the_embedding(checkpoint: Path) -> None:
    write(checkpoint, "config.json", {**CONFIG, "vocab_size": 300})
    save_file({EMBEDDING: np.zeros((300, 8), np.float32)}, checkpoint / "model.safetensors")
    with pytest.raises(UnsupportedModel, match="only 300 rows"):
        loaded(checkpoint)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("tokenizer.json", UnsupportedModel, r"no tokenizer\.json"),
        ("model.safetensors", UnsupportedModel, "no safetensors"),
    ],
)
def test_missing_files(checkpoint: Path, name: str, error: type[Exception], words: str) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(error, match=words):
        loaded(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_unreadable_files_are_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).write_text("{not json")
    with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
        loaded(checkpoint)


def test_integer_weights_are_refused(checkpoint: Path) -> None:
    save_file({**tensors(), "model.layers.0.q.weight": np.zeros((4, 4), np.int8)}, checkpoint / "model.safetensors")
    with open_reference(loaded(checkpoint)) as found, pytest.raises(UnsupportedModel, match="I8"):
        found["model.layers.0.q.weight"]
