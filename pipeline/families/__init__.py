"""One declarative file per ``model_type`` of config.json, discovered by listing. Adding a family is adding a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..contracts import ModelKind
from ..errors import UnsupportedModel


@dataclass(frozen=True, kw_only=True)
class Family:
    """What kobako must know of an architecture that its config.json does not say.

    Attributes:
        model_type: exactly as in config.json.
        kind: a ``decoder`` continues text; an ``encoder`` reads all of it at once (`kobako.pipeline.encoder`);
            a ``seq2seq`` model does both (`kobako.pipeline.seq2seq`).
        embedding: parameter name of the token embedding ``[V, hidden]``.
        source_embedding: of a seq2seq model whose encoder reads a table of its own, the name of that one; `embedding`
            is then the decoder's, and a tied head's.
        head: parameter name of the output projection ``[V, hidden]``; absent from files when tied; encoders: empty.
        heads: first parts of the names of all modules that the embedding's name does not begin with.
        filler: of an encoder, the first module behind the bare model that tells what a masked token was.
        filler_table: parameter name of its projection ``[V, hidden]``, which is the embedding's table.
        positions_behind_padding: of an encoder, positions are counted from behind the padding token's id, not from 0.
        layers: module path of the list of layers, of a seq2seq model those of its decoder.
        cross: of a seq2seq model, the linear layers of a decoder layer that make keys and values of the source.
        cross_norm: the norm of a decoder layer that those keys go through, head by head, or empty.
        merged: source and answer are looked at by one attention, whose keys and values the `cross` layers make of both.
        window_each_way: an encoder's sliding window reaches so many tokens back and as many ahead; else it lies around
            the token.
        feeds: modules of a layer whose outputs go, channel by channel, into these linear layers and nowhere
            else, so that a scale can move from one to the other (`kobako.pipeline.smooth`).
        norm_offset: what the modeling code adds to the stored weights of its RMSNorms (Gemma: 1).
        rewrite: config.json of this family → that of another which computes the same from the same tensors, or None.
        shapes: rewritten config.json → shapes of the parameters by which it could contradict the weights, where
            layers differ; compared when a checkpoint is loaded.
        tokenizer: whose tokenizer the checkpoints use that have none of their own, in words.
        senses: of a multimodal checkpoint, entry of its config.json → what that part reads besides text. `rewrite`
            takes the text part; what is left out is said in manifest, reports and ``kobako plan``.
        stored_names: tensors that checkpoints call otherwise than transformers' modules do: stored name → parameter.
        stored_prefixes: the same for whole parts of a checkpoint: beginning of a stored name → of the parameter's.
        stored_ends: the same for the last parts of names.
        per_layer_table: parameter name of the table ``[V, L·D]`` that gives every layer a vector for each token, or
            None. It is kept outside the graph (`kobako.pipeline.embeddings`).
        per_layer_projection: parameter name of the matrix ``[L·D, hidden]`` that adds to it, or None.
        nested: the first channels of every feed-forward layer were trained to be a model of their own (MatFormer), so
            that a smaller model can be taken out (`kobako.pipeline.reference.slices`).
        transposed: linear modules whose weights the checkpoint stores as ``[I, O]``, by the end of their path.
        fine: linear layers, by the end of their path, that keep 8 bits where a recipe has 4: with so few inputs that
            they do not make a group, or that hardly weigh anything.
        residual_scale: factor of the residual stream in float16, where the plain one leaves float16's range.
        residual_writers: norms of a decoder layer whose outputs are added to the residual stream; with a
            `residual_scale` nothing else may write to it but the embedding.
        gguf_architecture: ``general.architecture`` of GGUF files of this family, or None.
        gguf_rope_permuted: llama.cpp stores query and key rows permuted for its own rotary layout.
        gguf_parts: GGUF tensor of a layer → module of a decoder layer, where they are not llama's.
        gguf_norms_offset: what llama.cpp has added to the weights of norms.
        gguf_config: entries of config.json that hold for every GGUF file of this family.
        gguf_window_pattern: every so many-th layer attends to everything, others within the window; 0 = none slides.
        gguf_local_theta: rope base of the layers that slide.
        litert_lm_model_type: the LlmModelType the LiteRT-LM engine should be told.
    """

    model_type: str
    kind: ModelKind = "decoder"
    embedding: str = "model.embed_tokens.weight"
    source_embedding: str = ""
    head: str = "lm_head.weight"
    heads: tuple[str, ...] = ()
    filler: str = ""
    filler_table: str = ""
    positions_behind_padding: bool = False
    layers: str = "model.layers"
    cross: tuple[str, ...] = ()
    cross_norm: str = ""
    merged: bool = False
    window_each_way: bool = False
    feeds: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
            "mlp.up_proj": ("mlp.down_proj",),
        }
    )
    norm_offset: float = 0.0
    rewrite: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    shapes: Callable[[Mapping[str, Any]], Mapping[str, tuple[int, ...]]] | None = None
    tokenizer: str = ""
    senses: Mapping[str, str] = field(default_factory=dict)
    stored_names: Mapping[str, str] = field(default_factory=dict)
    stored_prefixes: Mapping[str, str] = field(default_factory=dict)
    stored_ends: Mapping[str, str] = field(default_factory=dict)
    per_layer_table: str | None = None
    per_layer_projection: str | None = None
    nested: bool = False
    transposed: tuple[str, ...] = ()
    fine: tuple[str, ...] = ()
    residual_scale: float = 1.0
    residual_writers: tuple[str, ...] = ()
    gguf_architecture: str | None = None
    gguf_rope_permuted: bool = False
    gguf_parts: Mapping[str, str] = field(default_factory=dict)
    gguf_norms_offset: float = 0.0
    gguf_config: Mapping[str, Any] = field(default_factory=dict)
    gguf_window_pattern: int = 0
    gguf_local_theta: float = 10000.0
    litert_lm_model_type: str = "generic_model"

    @property
    def tables(self) -> tuple[str, ...]:
        """Parameter names of all tables of tokens, in the order in which a seq2seq model's functions read them."""
        return tuple(filter(None, (self.source_embedding, self.embedding)))


SENSES: Mapping[str, str] = {"vision_config": "images", "audio_config": "audio"}
"""What multimodal models of transformers call their eyes and ears."""


def text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text configuration inside a multimodal one, with what only the outer one says of tokens.

    Raises UnsupportedModel when there is none.
    """
    inner = config.get("text_config")
    if not isinstance(inner, Mapping) or not isinstance(inner.get("model_type"), str):
        raise UnsupportedModel(
            f"config.json of {config.get('model_type')} has no text_config with a model_type.",
            "Name the whole checkpoint, or its text part with the configuration of that.",
        )
    outer = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")
    return {**{name: config[name] for name in outer if name in config}, **inner}


ENCODERS = ("bert", "distilbert", "roberta", "electra", "camembert", "xlm-roberta", "albert", "modernbert")
"""Encoders that transformers can also wrap as decoders, which their checkpoints are not."""


def first_position(family: Family, config: Mapping[str, Any]) -> int:
    """The position of an encoder's first token."""
    return int(config.get("pad_token_id") or 0) + 1 if family.positions_behind_padding else 0


def names() -> list[str]:
    """All known model types."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(model_type: str) -> Family:
    """The family of a ``model_type``.

    One without a file that transformers has as a causal language model is taken to be named and built as llama is
    (nothing is smoothed): the proof tells whether that is so.

    Raises UnsupportedModel, naming the nearest known one.
    """
    if model_type in names():
        family: Family = importlib.import_module(f"{__name__}.{model_type}").FAMILY
        return family
    check_known(model_type)
    return Family(model_type=model_type, feeds={})


def check_known(model_type: str) -> None:
    """Raise UnsupportedModel for an architecture that no generic decoder stands for."""
    import difflib

    from transformers.models.auto import modeling_auto as known

    if model_type in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise UnsupportedModel(
            f"architecture {model_type}: this encoder-decoder is not supported.",
            f"Encoder-decoders are supported as {', '.join(name for name in names() if get(name).kind == 'seq2seq')}.",
        )
    if model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in ENCODERS:
        return
    if model_type in ENCODERS or model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise UnsupportedModel(
            f"architecture {model_type}: this encoder is not supported.",
            f"Supported encoders: {', '.join(name for name in names() if name in ENCODERS)}. "
            "CONTRIBUTING.md tells how to add a family.",
        )
    near = difflib.get_close_matches(model_type, names(), n=1, cutoff=0.3)
    hint = f"The nearest supported architecture is {near[0]!r}. " if near else ""
    raise UnsupportedModel(
        f"architecture {model_type!r} is not supported.",
        f"{hint}Supported: {', '.join(names())}. CONTRIBUTING.md tells how to add one.",
    )


def by_gguf_architecture(architecture: str) -> Family:
    """The family of a GGUF file's ``general.architecture``. Raises UnsupportedModel."""
    known = {family.gguf_architecture: family for family in map(get, names()) if family.gguf_architecture}
    if architecture not in known:
        raise UnsupportedModel(
            f"GGUF architecture {architecture!r} is not supported.", f"Supported in GGUF: {', '.join(sorted(known))}."
        )
    return known[architecture]
