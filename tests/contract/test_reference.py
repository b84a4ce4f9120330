"""What kobako reads out of a checkpoint is what transformers reads: ids, weights and logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import Reference, Source, SourceFile, no_progress
from kobako.pipeline.errors import IntegrityError
from kobako.pipeline.fetch import fetch, parse
from kobako.pipeline.reference.load import load

pytestmark = pytest.mark.heavy

NASTY = [
    "",
    " ",
    "   leading, trailing   ",
    "many    spaces\tand\ttabs \u00a0 and\u3000wide ones",
    "one\ntwo\n\nthree\n\n\n  four\r\nfive\n",
    "小さな箱に小さなモデルが入っている。「本当に？」と彼女は言った。ﾊﾝｶｸ ＦＵＬＬ",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣٤",
    "שלום עולם 🙂 नमस्ते दुनिया สวัสดี",
    "👩‍👩‍👧‍👦 👨🏽‍💻 🏳️‍🌈 ❤️ 🇯🇵",
    "e\u0301a\u0308n\u0303 vs éäñ; Z\u0351\u036b\u0343a\u0321\u034cl\u0338g\u0321o",
    "7 42 1984 123456789 3.14159 1,000,000 ½ ² x10 a1b2 2026-11-21",
    "a   5\n\n1. first\n\n  2. second\n\n\n10",
    "It's we'll THEY'RE I'd you've 'tis ’twas can't",
    "def f(x):\n    return {'a': [x**2, -1], \"b\": f'{x!r}'}  # ok\n\tif x >= 0 && y != 1: pass\n",
    "https://example.org/a_b-c?d=e&f=%20#g <html><b>x</b></html> \\frac{a}{b}",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "inside<|im_end|>words <|endoftext|> and <|im_start|><|im_start|>",
    "<s>a</s> <unk> [INST] x [/INST] <0x41> ▁▁ <extra>",
    "\x00\x01\x7f\ufeff\u200b\u200e\ufffd\U0010ffff",
    "Straße ſ İı ß ǅ ﬁ Ω Å 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "supercalifragilisticexpialidocious" * 3,
]


def source(path: Path, form: Any, paths: list[str]) -> Source:
    files = tuple(SourceFile(path=name, size_bytes=(path / name).stat().st_size, sha256="0" * 64) for name in paths)
    return Source(name="m", origin="file", revision="r", directory=path, files=files, format=form, licence="MIT")


def make_reference(source_: Source, out: Path) -> Reference:
    out.mkdir()
    return load(source_, out)


def digits_first(theirs: Any) -> Any:
    """transformers' tokenizer with the step that its GGUF reader forgets: SmolLM sets every digit apart."""
    from tokenizers import pre_tokenizers

    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return theirs


def assert_same_ids(ours: Any, theirs: Any, texts: list[str]) -> None:
    """Compare two tokenizers, with and without special tokens, forth and back."""
    for text in texts:
        for special in (True, False):
            expected = theirs.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special).ids == expected, text
        assert ours.decode(expected, skip_special_tokens=False) == theirs.decode(expected), text


@pytest.fixture(scope="module")
def gguf_files() -> Any:
    """The helper that the unit tests write GGUF files with."""
    import importlib.util
    import sys

    path = Path(__file__).parents[1] / "unit" / "gguf_files.py"
    spec = importlib.util.spec_from_file_location("gguf_files_for_contracts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["smollm", "gpt-2", "llama-bpe", "tekken", "sentencepiece"])
@pytest.mark.parametrize("flags", [{}, {"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": True}])
def test_tokenizers_of_gguf_files(tmp_path: Path, gguf_files: Any, kind: str, flags: dict[str, bool]) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    plain = gguf_files.sentencepiece_fields() if kind == "sentencepiece" else gguf_files.byte_level_fields(kind)
    gguf_files.write_gguf(tmp_path / "m.gguf", gguf_files.with_extra(plain, **flags))
    reference = make_reference(source(tmp_path, "gguf", ["m.gguf"]), tmp_path / "reference")
    ours = Tokenizer.from_file(str(reference.tokenizer_dir / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(str(tmp_path), gguf_file="m.gguf")
    assert_same_ids(ours, digits_first(theirs) if kind == "smollm" else theirs, NASTY)
    reread = AutoTokenizer.from_pretrained(str(reference.tokenizer_dir))
    assert [reread.encode(text) for text in NASTY] == [theirs.encode(text) for text in NASTY]
    assert reread.chat_template == theirs.chat_template
    assert (reread.eos_token_id, reread.bos_token_id) == (theirs.eos_token_id, theirs.bos_token_id)


@pytest.mark.parametrize("quantization", ["F32", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_models_of_gguf_files(tmp_path: Path, gguf_files: Any, quantization: str, tied: bool) -> None:
    import torch
    from kobako.pipeline.reference.model import reference_model
    from transformers import AutoModelForCausalLM

    gguf_files.write_gguf(tmp_path / "m.gguf", gguf_files.byte_level_fields(), tied=tied, quantization=quantization)
    reference = make_reference(source(tmp_path, "gguf", ["m.gguf"]), tmp_path / "reference")
    ours = reference_model(reference)
    theirs = AutoModelForCausalLM.from_pretrained(str(tmp_path), gguf_file="m.gguf", dtype=torch.float32).eval()
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name
    ids = torch.arange(20)[None] * 7
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-5)


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, gguf_files: Any) -> Callable[..., Path]:
    """``tiny_checkpoint(dtype, tied, shards, rope)`` → a directory as save_pretrained writes it."""
    import torch
    from kobako.pipeline.reference import gguf, gguf_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    def make(
        dtype: Any = torch.float32, *, tied: bool = True, shards: bool = False, rope: dict[str, Any] | None = None
    ) -> Path:
        directory: Path = tmp_path_factory.mktemp("checkpoint")
        gguf_files.write_gguf(directory / "t.gguf", gguf_files.byte_level_fields())
        tokenizer = gguf_tokenizer.build(gguf.read_header(directory / "t.gguf"))
        (directory / "t.gguf").unlink()
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=400, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=tied, bos_token_id=1,
            eos_token_id=2, rope_parameters=rope or {"rope_type": "default", "rope_theta": 10000.0},
        )  # fmt: skip
        model = LlamaForCausalLM(config).to(dtype)
        model.save_pretrained(directory, max_shard_size="60KB" if shards else "1GB")
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=gguf_files.TEMPLATE
        ).save_pretrained(directory)
        return directory

    return make


def assert_same_model(directory: Path, tmp_path: Path) -> None:
    """Logits of a Reference against transformers' own reading of the directory."""
    import torch
    from kobako.pipeline.reference.model import reference_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reference = make_reference(fetch(parse(str(directory)), tmp_path / "downloads", no_progress), tmp_path / "ref")
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ours = reference_model(reference)
    ids = torch.arange(30)[None] * 11
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)
    own, original = AutoTokenizer.from_pretrained(reference.tokenizer_dir), AutoTokenizer.from_pretrained(directory)
    assert [own.encode(text) for text in NASTY] == [original.encode(text) for text in NASTY]
    assert own.chat_template == original.chat_template


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("tied", "shards"), [(True, False), (False, True)])
def test_models_of_directories(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path], dtype: str, tied: bool, shards: bool
) -> None:
    import torch

    directory = tiny_checkpoint(getattr(torch, dtype), tied=tied, shards=shards)
    assert (directory / "model.safetensors.index.json").exists() is shards
    assert_same_model(directory, tmp_path)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
        {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 128,
        },
    ],
)  # fmt: skip
def test_ropes(tmp_path: Path, tiny_checkpoint: Callable[..., Path], rope: dict[str, Any]) -> None:
    assert_same_model(tiny_checkpoint(rope=rope), tmp_path)


def test_llama3_factors_are_transformers_own() -> None:
    import torch
    from kobako.pipeline.reference.gguf_config import llama3_factors
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, rope_parameters=rope)
    inverse, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 500000.0 ** (-np.arange(0, 64, 2) / 64)
    assert np.allclose(plain / inverse.numpy(), llama3_factors(rope, 64), rtol=1e-5)


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    from kobako.pipeline.reference.model import reference_model
    from safetensors.numpy import load_file, save_file

    directory = tiny_checkpoint()
    whole = load_file(directory / "model.safetensors")
    for number, (name, value) in enumerate(
        [("model.norm.weight", None), ("model.norm.weight", np.ones(3, np.float32))]
    ):
        changed = {key: tensor for key, tensor in whole.items() if key != name}
        save_file(changed if value is None else {**changed, name: value}, directory / "model.safetensors")
        source_ = fetch(parse(str(directory)), tmp_path / "downloads", no_progress)
        with pytest.raises(IntegrityError, match=r"model\.norm\.weight"):
            reference_model(make_reference(source_, tmp_path / f"ref{number}"))
