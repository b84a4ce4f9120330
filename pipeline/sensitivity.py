"""What each part of a model loses in 4 bits: measured, part by part, on text that nothing else sees.

A part is the attention or the feed-forward of one layer, or the table of tokens. It is put at 4 bits while everything
else stays as it was, and the model reads the text once. Losses of small changes nearly add up, so a few dozen readings
tell what any mixture of 4 and 8 bits will lose (`allocate`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import families
from .calibration import calibration_ids
from .contracts import FloatArray, Progress, Quantized, Reference
from .metrics import kl_nats
from .mixture import Curve, Part
from .scheme import Role, Scheme, parameter_roles, smoothed
from .tokens import ShippedTokenizer
from .weights import QuantizedWeights, WeightTensor, dequantized, open_weights, round_to_nearest, stored_bytes

if TYPE_CHECKING:
    from .reference.residence import Rows

SENSITIVITY_TEXT = Path(__file__).parent / "texts" / "sensitivity.txt"
MOST_TOKENS = 384
TABLE = "table of tokens"


def sensitivity(reference: Reference, narrow: Quantized, progress: Progress, calibration: Path | None = None) -> Curve:
    """The loss of each part at 4 bits; `narrow` is the model with everything at 4 bits, `calibration` as for it."""
    from .reference.eager import empty_model, load_config
    from .reference.model import reference_model
    from .reference.residence import READING
    from .reference.weights import open_reference

    family = families.get(reference.model_type)
    roles = parameter_roles(empty_model(load_config(reference.directory)), family)
    tokenizer = ShippedTokenizer(reference.tokenizer_dir)
    model = reference_model(reference, budget=READING)
    ids = tokenizer.encode(SENSITIVITY_TEXT.read_text(encoding="utf-8"))[:MOST_TOKENS]
    with open_reference(reference) as stored:
        scheme = Scheme(roles, narrow.recipe, family)
        sequences = calibration_ids(tokenizer, calibration, narrow.recipe.calibration_sha256)
        wide = smoothed(model, stored, scheme, sequences)
        bench = _Bench(model, wide, ids)
        return _measure(bench, open_weights(narrow.directory), parts_of(roles, family), progress)


def parts_of(roles: Mapping[str, Role], family: families.Family) -> dict[str, tuple[str, ...]]:
    """The quantized parameters, grouped: name of the part → names of its parameters."""
    parts: dict[str, tuple[str, ...]] = {}
    for name, role in roles.items():
        if role in ("plain", "table"):
            continue
        _, _, inside = name.partition(f"{family.layers}.")
        # a projection that belongs to no layer is a part of its own
        label = " ".join(["layer", *inside.split(".")[:2]]) if inside else name.removesuffix(".weight")
        label = TABLE if role == "embedding" else label
        parts[label] = (*parts.get(label, ()), name)
    return parts


class _Bench:
    """A model whose parameters can be replaced, and what it said before."""

    def __init__(self, model: Any, values: Mapping[str, FloatArray], ids: list[int]) -> None:
        self.model, self.values, self.ids = model, values, ids
        for name in dict(model.named_parameters()):
            self.put_back(name)
        self.said = self.logits()

    def put(self, name: str, rows: Rows) -> None:
        """Replace one parameter."""
        self.model.residence.put(name, rows)

    def put_back(self, name: str) -> None:
        """Let a parameter be what it was."""
        self.put(name, self.wide_rows(name))

    def wide_rows(self, name: str) -> Rows:
        """What a parameter was."""
        from .reference.rowreader import rows_of

        return partial(rows_of, self.values, name)

    def logits(self) -> FloatArray:
        """What the model says now, ``[T, V]``."""
        import torch

        with torch.inference_mode():
            found: FloatArray = self.model(torch.tensor([self.ids]), use_cache=False).logits[0].float().numpy()
            return found

    def loss(self) -> float:
        """Mean KL divergence in nats from what the model said before."""
        return float(kl_nats(self.said, self.logits()).mean())


def _measure(
    bench: _Bench, narrow: QuantizedWeights, parts: Mapping[str, tuple[str, ...]], progress: Progress
) -> Curve:
    from .reference.eager import dynamic_int8_activations

    with dynamic_int8_activations(bench.model):
        activations = bench.loss()
    measured = []
    for count, (label, names) in enumerate(parts.items()):
        progress(count / (len(parts) + 2), label)
        for name in names:
            bench.put(name, partial(_narrow_rows, narrow, name))
        sizes = [_sizes(narrow[name], narrow.shape(name)) for name in names]
        measured.append(
            Part(
                name=label, parameters=names, loss_nats=bench.loss(),
                narrow_bytes=sum(small for small, _ in sizes), wide_bytes=sum(large for _, large in sizes),
            )
        )  # fmt: skip
        for name in names:
            bench.put_back(name)
    everything = [name for names in parts.values() for name in names]
    for name in everything:
        bench.put(name, partial(_narrow_rows, narrow, name))
    narrow_loss = bench.loss()
    for name in everything:
        bench.put(name, partial(_byte_rows, bench.wide_rows(name)))
    return Curve(
        parts=tuple(measured), narrow_loss_nats=narrow_loss, wide_loss_nats=bench.loss(), activations_nats=activations
    )


def _narrow_rows(narrow: QuantizedWeights, name: str, begin: int, end: int) -> FloatArray:
    return dequantized(narrow.rows(name, begin, end))


def _byte_rows(rows: Rows, begin: int, end: int) -> FloatArray:
    """Rows in 8 bits: each has a scale of its own."""
    return round_to_nearest(rows(begin, end), 8, None).dequantize()


def _sizes(narrow: WeightTensor, shape: tuple[int, ...]) -> tuple[int, int]:
    """Stored bytes of a parameter at 4 and at 8 bits."""
    return stored_bytes(narrow), math.prod(shape) + 2 * shape[0]
