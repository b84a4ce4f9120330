"""Tiny random encoders of true architecture: what the contract tests export and compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from kobako.pipeline.contracts import RECIPES, Exported, FloatArray, Quantized
from kobako.pipeline.encoder.standard import EncoderStandard
from kobako.pipeline.heads import Head
from kobako.pipeline.standard import Kind

from tests.families import random_values

CONTEXT = 160
LAYERS = 4  # one more than LiteRT traces: its copies of layers are used
LABELS = ("good", "bad", "neither")
EMBED = Head(task="embed", size=64, longest_tokens=256, pooling="mean", normalize=True)
CLASSIFY = Head(task="classify", size=len(LABELS), longest_tokens=256, labels=LABELS)
ANSWER = Head(task="answer", size=2, longest_tokens=256)
TAG = Head(task="tag", size=len(LABELS), longest_tokens=256, labels=LABELS)
FILL = Head(task="fill-mask", size=384, longest_tokens=256, mask="[MASK]", mask_id=4)
ROBERTA: Mapping[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 258,
}  # fmt: skip
SIZES: Mapping[str, Mapping[str, Any]] = {
    "bert": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "layer_norm_eps": 1e-12,
    },
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "distilbert": {"dim": 64, "hidden_dim": 128, "n_layers": LAYERS, "n_heads": 4},
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One encoder: its architecture, its head, and what is peculiar to it."""

    model_type: str
    head: Head
    quirk: str
    exported: bool = True  # otherwise it is only read: what its graph would show, others show

    @property
    def name(self) -> str:
        """For test ids."""
        return f"{self.model_type}-{self.head.task}"


SHAPES = (
    Shape("bert", EMBED, "token types, mean of all tokens, normalized"),
    Shape("bert", CLASSIFY, "pooler and three labels"),
    Shape("distilbert", replace(EMBED, pooling="cls", normalize=False), "no token types, first token"),
    Shape("distilbert", replace(CLASSIFY, many=True), "labels that do not exclude each other"),
    Shape("roberta", EMBED, "positions behind the padding token's"),
    Shape("roberta", CLASSIFY, "labels from the first token"),
    Shape("roberta", FILL, "one masked word, tied table, shared biases", exported=False),
    Shape("bert", replace(ANSWER, separator_id=3), "a span, token types of question and passage"),
    Shape("xlm-roberta", EMBED, "read as roberta", exported=False),
    Shape("roberta", ANSWER, "a span, no token types", exported=False),
    Shape("bert", TAG, "a label for each token"),
    Shape("distilbert", TAG, "a label for each token", exported=False),
    Shape("roberta", TAG, "a label for each token, no token types", exported=False),
    Shape("bert", FILL, "one masked word, tied table, shared biases"),
    Shape("distilbert", FILL, "one masked word, tied table"),
)


def config_of(shape: Shape) -> Any:
    """The configuration as transformers has it."""
    from transformers import AutoConfig

    labels = LABELS if shape.head.task != "answer" else ("begin", "end")
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    return AutoConfig.for_model(
        shape.model_type,
        **{"vocab_size": 384, "max_position_embeddings": 256, "pad_token_id": 0, **SIZES[shape.model_type], **named},
    )


def vocabulary() -> list[str]:
    """384 word pieces: special tokens, every letter, digit and mark by itself and inside a word, and some syllables."""
    import string

    marks = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    inside = [f"##{one}" for one in string.ascii_lowercase + string.digits]
    words = ["the", "and", "of", "to", "in", "##er", "##ing", "##ed", "##es", "##on", "##an", "##al", "water", "moon"]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *marks, *inside, *words]
    return [*known, *(f"[unused{i}]" for i in range(384 - len(known)))]


def write_tokenizer(directory: Path) -> None:
    """The tokenizer of `vocabulary`, lower-case, in Hugging Face form."""
    from tokenizers.implementations import BertWordPieceTokenizer

    directory.mkdir(parents=True)
    made = BertWordPieceTokenizer(vocab={word: i for i, word in enumerate(vocabulary())}, lowercase=True)
    made.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def make(directory: Path, shape: Shape, recipe: str) -> Quantized:
    """A random encoder of `shape`, quantized into `directory`."""
    from kobako.pipeline import families
    from kobako.pipeline.contracts import no_progress
    from kobako.pipeline.heads import write_head
    from kobako.pipeline.quantize import quantize_all
    from kobako.pipeline.reference.eager import empty_encoder
    from kobako.pipeline.scheme import parameter_roles
    from kobako.pipeline.weights import WEIGHTS_FILE, write_weights

    config, family = config_of(shape), families.get(shape.model_type)
    model = empty_encoder(config, shape.head)
    write_tokenizer(directory / "tokenizer")
    config.save_pretrained(directory)
    write_head(shape.head, directory)
    values = {name: random_values(name, value.shape, family) for name, value in model.named_parameters()}
    roles = parameter_roles(model, family)
    write_weights(directory / WEIGHTS_FILE, quantize_all(values, roles, RECIPES[recipe], no_progress))
    return Quantized(
        name=f"tiny-{shape.name}", directory=directory, recipe=RECIPES[recipe], model_type=shape.model_type
    )


@lru_cache(maxsize=6)  # the targets of one encoder come after each other
def eager_answers(quantized: Quantized, kind: Kind, longest: int, noise: float) -> FloatArray:
    """What eager PyTorch answers to the proof's texts."""
    from kobako.pipeline.encoder.expect import answers_of
    from kobako.pipeline.encoder.texts import proof_ids, texts_for
    from kobako.pipeline.heads import head_of
    from kobako.pipeline.reference.eager import quantized_model
    from kobako.pipeline.tokens import ShippedTokenizer

    head = head_of(quantized.directory)
    ids = proof_ids(ShippedTokenizer(quantized.tokenizer_dir), texts_for(head), longest)
    return answers_of(quantized_model(quantized), head, kind, ids, longest, noise)


def standard_of(quantized: Quantized, exported: Exported) -> EncoderStandard:
    """What eager PyTorch answers to the proof's texts."""
    from kobako.pipeline.encoder.compare import Comparison
    from kobako.pipeline.encoder.texts import proof_ids, texts_for
    from kobako.pipeline.heads import head_of
    from kobako.pipeline.standard import kind_of
    from kobako.pipeline.tokens import ShippedTokenizer
    from kobako.pipeline.weights import weight_digests

    head, kind = head_of(quantized.directory), kind_of(exported.activations)
    texts = texts_for(head)
    longest = exported.context_tokens
    ids = proof_ids(ShippedTokenizer(quantized.tokenizer_dir), texts, longest)
    answers, floats, noisy = (
        eager_answers(quantized, one, longest, noise) for one, noise in ((kind, 0.0), ("float", 0.0), (kind, 1e-6))
    )
    facts = {
        "texts": texts, "weight_digests": weight_digests(quantized),
        kind: {
            "noise": Comparison.of(answers, noisy, head).figures(),
            "float_distance": Comparison.of(floats, answers, head).distance,
        },
    }  # fmt: skip
    return EncoderStandard(
        recipe=quantized.recipe, kind=kind, head=head, ids=ids, answers=answers, float_answers=floats, facts=facts
    )
