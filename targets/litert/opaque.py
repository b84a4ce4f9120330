"""Six operators that torch and the converter carry through unread; `rewrite` gives them their LiteRT meaning.

What the converter never sees it cannot fuse, transpose or re-quantize: weights stay named inputs of the graph
until their integer codes are written into the file.

Shape legend: T tokens, I / O inputs and outputs, V vocabulary, K key/value heads, S slots, D head dimension.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch.overrides import TorchFunctionMode

NAMESPACE = "kobako_litert"
CALL_PREFIX = "kobako."
"""Names of the custom calls in the converted graph: the prefix and the operator's name."""

LINEAR = "linear"
LOOKUP = "lookup"
MATMUL = "matmul"
WRITE = "write"
MARK = "mark"
GELU = "gelu"

SCHEMAS: Mapping[str, str] = {
    LINEAR: "(Tensor x, Tensor weight, Tensor? bias) -> Tensor",  # [..., I], [O, I], [O] -> [..., O]
    LOOKUP: "(Tensor ids, Tensor table) -> Tensor",  # [T], [V, H] -> [T, H]
    MATMUL: "(Tensor a, Tensor b) -> Tensor",  # [1, K, T, D], [1, K, S, D] -> [1, K, T, S]
    WRITE: "(Tensor cache, Tensor update, Tensor start) -> Tensor",  # one slice of the cache replaced
    GELU: "(Tensor x) -> Tensor",  # by erf; the converter spells it out in twenty operators
    MARK: "(Tensor hidden) -> Tensor",  # identity: where a decoder layer begins, and where the last one ends
}


def _fake_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _fake_lookup(ids: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return table.new_empty((*ids.shape, table.shape[1]))


def _fake_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_empty((*a.shape[:-1], b.shape[-2]))


def _fake_write(cache: torch.Tensor, update: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    return cache.new_empty(cache.shape)


def _fake_same(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape)


FAKES: Mapping[str, Callable[..., Any]] = {
    LINEAR: _fake_linear,
    LOOKUP: _fake_lookup,
    MATMUL: _fake_matmul,
    WRITE: _fake_write,
    MARK: _fake_same,
    GELU: _fake_same,
}


@functools.cache
def operators() -> Mapping[str, Any]:
    """The torch operators by name, registered with torch and with litert-torch on the first call."""
    import torch
    from litert_torch.backend import lowerings

    found: dict[str, Any] = {}
    for name, schema in SCHEMAS.items():
        torch.library.define(f"{NAMESPACE}::{name}", schema)
        torch.library.register_fake(f"{NAMESPACE}::{name}", FAKES[name])
        found[name] = getattr(getattr(torch.ops, NAMESPACE), name).default
        lowerings.lower(found[name])(functools.partial(_lower, name))
    return found


def _lower(name: str, context: Any, *operands: Any) -> Any:
    from litert_converter.mlir import ir
    from litert_converter.mlir.dialects import stablehlo
    from litert_torch.backend.lowerings import utils

    return stablehlo.custom_call(
        result=utils.node_meta_to_ir_types(context.node),
        inputs=[operand for operand in operands if operand is not None],
        call_target_name=ir.StringAttr.get(CALL_PREFIX + name),
        has_side_effect=ir.BoolAttr.get(False),
        backend_config=ir.StringAttr.get(""),
    )


def catching_weights() -> TorchFunctionMode:
    """Within this mode every linear layer, embedding lookup and exact GELU becomes an opaque operator."""
    import torch.nn.functional as F
    from torch.overrides import TorchFunctionMode

    linear, lookup, gelu = (operators()[name] for name in (LINEAR, LOOKUP, GELU))

    def as_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
        return linear(x, weight, bias)

    def as_lookup(ids: torch.Tensor, weight: torch.Tensor, *_options: Any, **_named: Any) -> Any:
        return lookup(ids.reshape(-1), weight).reshape(*ids.shape, weight.shape[1])

    def as_gelu(x: torch.Tensor, approximate: str = "none") -> Any:
        return gelu(x) if approximate == "none" else F.gelu(x, approximate=approximate)

    replacements: dict[Any, Callable[..., Any]] = {F.linear: as_linear, F.embedding: as_lookup, F.gelu: as_gelu}

    class Catching(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return replacements.get(func, func)(*args, **(kwargs or {}))

    return Catching()


def call_name(operator: Any) -> str:
    """Which opaque operator this is, or an empty string."""
    target = getattr(operator.builtinOptions2, "callTargetName", None)
    name = target.decode() if isinstance(target, bytes) else (target or "")
    return name.removeprefix(CALL_PREFIX)
