"""The same linear layers rounded in several ways; what each loses in float arithmetic, the tables being left alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kobako.pipeline import families
from kobako.pipeline.contracts import RECIPES, FloatArray, Quantized, Recipe, Reference
from kobako.pipeline.encoder.compare import cosines
from kobako.pipeline.encoder.expect import answers_of
from kobako.pipeline.encoder.texts import proof_texts
from kobako.pipeline.heads import find_head
from kobako.pipeline.metrics import kl_nats, top1_agreement
from kobako.pipeline.prooftext import PROOF_TEXT
from kobako.pipeline.quantize import quantize
from kobako.pipeline.reference.eager import quantized_model, set_parameter, tie
from kobako.pipeline.reference.model import reference_model
from kobako.pipeline.tokens import ShippedTokenizer
from kobako.pipeline.weights import QuantizedTensor, open_weights

GROUP = 32
TOKENS = 512
HEAD = ("source", "rounded by", "bits per weight", "loss", "seconds")


@dataclass(frozen=True)
class Row:
    """One way. `loss`: mean KL in nats and top-1 agreement, or 1 − mean cosine; of linear layers only."""

    source: str
    way: str
    bits: float
    loss: str
    seconds: float

    def cells(self) -> list[str]:
        """For the table."""
        return [self.source, self.way, f"{self.bits:.2f}", self.loss, f"{self.seconds:.0f}"]


def rows(name: str, reference: Reference, work: Path, high: bool) -> Iterator[Row]:
    """A row for each way, torchao's first."""
    say = speaker(reference)
    wanted = say(reference_model(reference))
    for way, config, bits in torchao_ways():
        model = reference_model(reference)
        began = time.monotonic()
        _by_torchao(model, reference, config)
        yield Row(name, way, bits, loss(reference, wanted, say(model)), time.monotonic() - began)
    for recipe, way in kobako_ways(high):
        out = work / f"{name}-{way.replace(' ', '-')}"
        out.mkdir()
        began = time.monotonic()
        quantized = quantize(reference, recipe, out)
        seconds = time.monotonic() - began
        model = with_own_tables(quantized, reference)
        yield Row(name, way, bits_per_weight(quantized), loss(reference, wanted, say(model)), seconds)


def kobako_ways(high: bool) -> Iterator[tuple[Recipe, str]]:
    """Recipes and what to call them."""
    from dataclasses import replace

    yield RECIPES["int4-nearest"], "kobako int4-nearest"
    yield RECIPES["int4"], "kobako int4"
    if high:
        yield replace(RECIPES["int4"], rounding="tuned"), "kobako int4 --effort high"


def torchao_ways() -> Iterator[tuple[str, Any, float]]:
    """Names, configurations for torchao's ``quantize_``, and bits per weight with 16-bit scales."""
    import torch
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup
    from torchao.quantization.quant_primitives import MappingType
    from torchao.quantization.quantize_.workflows import IntxChooseQParamsAlgorithm

    def config(mapping: MappingType, algorithm: IntxChooseQParamsAlgorithm) -> Any:
        return IntxWeightOnlyConfig(
            weight_dtype=torch.int4, granularity=PerGroup(GROUP), mapping_type=mapping,
            intx_choose_qparams_algorithm=algorithm,
        )  # fmt: skip

    affine, hqq = IntxChooseQParamsAlgorithm.AFFINE, IntxChooseQParamsAlgorithm.HQQ_SCALE_ONLY
    yield "torchao, symmetric (8da4w's weights)", config(MappingType.SYMMETRIC, affine), 4 + 16 / GROUP
    yield "torchao, HQQ scales", config(MappingType.SYMMETRIC, hqq), 4 + 16 / GROUP
    yield "torchao, asymmetric", config(MappingType.ASYMMETRIC, affine), 4 + 24 / GROUP


def _by_torchao(model: Any, reference: Reference, config: Any) -> None:
    """Round the linear layers inside the stack of layers."""
    from torchao.quantization import quantize_

    stack = model.get_submodule(families.get(reference.model_type).layers)
    quantize_(stack, config)


def with_own_tables(quantized: Quantized, reference: Reference) -> Any:
    """The quantized model with the original's embedding and head."""
    import torch
    from kobako.pipeline.reference.weights import open_reference

    model, family = quantized_model(quantized), families.get(reference.model_type)
    with open_reference(reference) as stored:
        for name in filter(None, (family.embedding, family.head)):
            if name in stored and name in dict(model.named_parameters()):
                set_parameter(model, name, torch.from_numpy(np.array(stored[name], np.float32)))
    tie(model)
    return model


def bits_per_weight(quantized: Quantized) -> float:
    """Of the 4-bit linear layers: codes, scales and shifts."""
    weights, bits, count = open_weights(quantized.directory), 0, 0
    for name in weights:
        tensor = weights[name]
        if isinstance(tensor, QuantizedTensor) and tensor.bits == 4:
            shifts = 0 if tensor.shifts is None else 8 * tensor.shifts.codes.size
            bits += 4 * tensor.codes.size + 16 * tensor.scales.size + shifts
            count += tensor.codes.size
    return bits / count


def speaker(reference: Reference) -> Callable[[Any], FloatArray]:
    """What asks a model: logits ``[T, V]`` of the proof text, or vectors ``[N, E]`` of its texts."""
    import torch

    tokenizer, head = ShippedTokenizer(reference.tokenizer_dir), find_head(reference.directory)
    if head is not None:
        texts = [tokenizer.encode_whole(text, head.longest_tokens) for text in proof_texts()]
        return lambda model: answers_of(model, head, "float", texts, head.longest_tokens)
    ids = torch.tensor([tokenizer.encode_prompt(PROOF_TEXT.read_text(encoding="utf-8"))[:TOKENS]])

    def logits(model: Any) -> FloatArray:
        with torch.inference_mode():
            found: FloatArray = model(ids, use_cache=False).logits[0].float().numpy()
        return found

    return logits


def loss(reference: Reference, wanted: FloatArray, said: FloatArray) -> str:
    """For the table."""
    if find_head(reference.directory) is not None:
        return f"1 − cosine {1.0 - cosines(wanted, said).mean():.5f}"
    return f"{kl_nats(wanted, said).mean():.4f} nats, {100 * top1_agreement(wanted, said):.1f} %"
