"""Fixtures shared by all tests. Nothing here imports torch at collection time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from kobako.pipeline.contracts import RECIPES, Quantized

TINY_TEXT = [
    "A small box holds a small model, and the model speaks in whole sentences.",
    "Une petite boîte contient un petit modèle. 小さな箱に小さなモデルが入っている。",
    "The train goes through a tunnel; the translation goes on. Der Zug fährt durch einen Tunnel.",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files go first, so that none of them ends alone where the suite runs in two processes."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (not item.nodeid.startswith("tests/e2e/"), -tests[item.path]))


def write_tiny_tokenizer(directory: Path) -> None:
    """A byte-level BPE tokenizer of 384 tokens in Hugging Face form, chat template inside."""
    import json

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TINY_TEXT, trainer)
    directory.mkdir(parents=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def make_tiny(directory: Path, recipe: str, *, tied: bool = True, layers: int = 2, seed: int = 0) -> Quantized:
    """A random llama of 64 channels, grouped-query attention and a real (tiny) tokenizer, quantized."""
    import torch
    from kobako.pipeline import families
    from kobako.pipeline.contracts import no_progress
    from kobako.pipeline.quantize import quantize_all
    from kobako.pipeline.scheme import parameter_roles
    from kobako.pipeline.weights import WEIGHTS_FILE, write_weights
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=384, hidden_size=64, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )  # fmt: skip
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)  # the default initialization gives nearly flat logits
    write_tiny_tokenizer(directory / "tokenizer")
    config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)
    values = {name: value.detach().numpy() for name, value in model.named_parameters()}
    roles = parameter_roles(model, families.get("llama"))
    write_weights(directory / WEIGHTS_FILE, quantize_all(values, roles, RECIPES[recipe], no_progress))
    return Quantized(name="tiny-llama", directory=directory, recipe=RECIPES[recipe], model_type="llama")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Quantized]:
    """``tiny(recipe, tied=True, layers=2, seed=0)`` → a Quantized of a random llama; made once per combination."""
    made: dict[tuple[str, bool, int, int], Quantized] = {}

    def get(recipe: str, *, tied: bool = True, layers: int = 2, seed: int = 0) -> Quantized:
        key = (recipe, tied, layers, seed)
        if key not in made:
            made[key] = make_tiny(tmp_path_factory.mktemp("tiny"), recipe, tied=tied, layers=layers, seed=seed)
        return made[key]

    return get


def write_tiny_checkpoint(directory: Path) -> Path:
    """A random llama as a Hugging Face directory, small enough that a build of it takes seconds."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=384, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )  # fmt: skip
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)
    write_tiny_tokenizer(directory)
    model.save_pretrained(directory)
    return directory


@dataclass(frozen=True)
class TinyBuild:
    """A model, the cache in which a build of it lies finished, and the package; tests must not change them."""

    model: Path
    cache: Path
    package: Path
    seconds: float = 0.0

    def command(self, out: Path, model: Path | None = None) -> list[str]:
        """The build as a command."""
        kobako = [sys.executable, "-m", "kobako.pipeline.cli.main", "build", str(model or self.model)]
        options = ["--recipe", "float16", "--target", "litert", "--context", "512", "--no-measure", "--quiet"]
        return [*kobako, *options, "--out", str(out)]


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory: pytest.TempPathFactory) -> TinyBuild:
    """A build of the random llama for LiteRT, by the command line, in a cache of its own."""
    home = tmp_path_factory.mktemp("tiny-build")
    return make_tiny_build(home)


def make_tiny_build(home: Path) -> TinyBuild:
    """Build the random llama below `home`."""
    model = write_tiny_checkpoint(home / "tiny")
    made = TinyBuild(model, home / "cache", home / "package")
    environment = os.environ | {"KOBAKO_CACHE": str(made.cache)}
    started = time.monotonic()
    subprocess.run(made.command(made.package), env=environment, check=True, capture_output=True)
    return replace(made, seconds=time.monotonic() - started)
