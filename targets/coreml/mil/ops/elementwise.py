"""Operations that treat elements one by one.

PyTorch computes float16 elementwise operations in float32 and rounds once, which is what is emulated; the few that it
does otherwise are marked `exact`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from ..site import Builder, Site, Step

Tensor = torch.Tensor
NOTHING = 1e-9  # added to a float16, even to its smallest subnormal, it changes nothing


def unary(f: Callable[[Tensor], Tensor]) -> Builder:
    """An operation of one input."""

    def build(site: Site) -> Step:
        x = site.arg("x")
        return lambda env: f(env[x])

    return build


def exact(f: Callable[[Tensor], Tensor]) -> Builder:
    """An operation of one input that PyTorch rounds more than once in float16: computed in float32."""

    def build(site: Site) -> Step:
        x = site.wide("x")
        return site.rounded(lambda env: f(env[x]))

    return build


def binary(f: Callable[[Tensor, Tensor], Tensor]) -> Builder:
    """An operation of two inputs, broadcast."""

    def build(site: Site) -> Step:
        x, y = site.arg("x"), site.arg("y")
        return lambda env: f(env[x], env[y])

    return build


def divide(site: Site) -> Step:
    """``real_div``: of integers too, which truncates to an integer."""
    x, y = site.arg("x"), site.arg("y")
    if site.dtype == torch.int32:
        return lambda env: torch.div(env[x], env[y], rounding_mode="trunc")
    return lambda env: torch.div(env[x], env[y])


def with_epsilon(f: Callable[[Tensor], Tensor], default: float) -> Builder:
    """``f(x + epsilon)``, the sum in float32."""

    def build(site: Site) -> Step:
        epsilon = site.value("epsilon", default)
        if epsilon < NOTHING:
            narrow = site.arg("x")
            return lambda env: f(env[narrow])
        x = site.wide("x")
        return site.rounded(lambda env: f(env[x] + epsilon))

    return build


def parametric(f: Callable[..., Tensor], *parameters: tuple[str, float]) -> Builder:
    """An operation of one input and constant numbers, given as (name, default), in float32."""

    def build(site: Site) -> Step:
        x = site.wide("x")
        numbers = [site.value(name, default) for name, default in parameters]
        return site.rounded(lambda env: f(env[x], *numbers))

    return build


def clip(site: Site) -> Step:
    """Limit to [alpha, beta]."""
    x, low, high = site.arg("x"), site.value("alpha"), site.value("beta")
    return lambda env: torch.clamp(env[x], low, high)


def gelu(site: Site) -> Step:
    """GELU: exact, or with tanh or sigmoid."""
    x, mode = site.wide("x"), str(site.value("mode", "EXACT"))
    if mode == "SIGMOID_APPROXIMATION":
        return site.rounded(lambda env: env[x] * torch.sigmoid(1.702 * env[x]))
    approximate = "tanh" if mode == "TANH_APPROXIMATION" else "none"
    return site.rounded(lambda env: functional.gelu(env[x], approximate=approximate))


def cast(site: Site) -> Step:
    """To another element type; towards zero for integers, so float16 beyond its end becomes infinite."""
    x, dtype = site.arg("x"), site.dtype
    return lambda env: env[x].to(dtype)


def select(site: Site) -> Step:
    """``a`` where the condition holds, else ``b``."""
    condition, a, b = site.arg("cond"), site.arg("a"), site.arg("b")
    return lambda env: torch.where(env[condition], env[a], env[b])


def floor_mod(a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the sign of the divisor."""
    return torch.remainder(a, b)


def hard_sigmoid(x: Tensor, alpha: Any, beta: Any) -> Tensor:
    """``clip(alpha · x + beta, 0, 1)``."""
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


OPS: Mapping[str, Builder] = {
    "abs": unary(torch.abs), "neg": unary(torch.neg), "sign": unary(torch.sign), "square": unary(torch.square),
    "floor": unary(torch.floor), "ceil": unary(torch.ceil), "round": unary(torch.round), "relu": unary(torch.relu),
    "logical_not": unary(torch.logical_not), "identity": unary(lambda x: x),
    "exp": unary(torch.exp), "exp2": exact(torch.exp2), "sin": exact(torch.sin), "cos": exact(torch.cos),
    "tan": exact(torch.tan), "atan": exact(torch.atan), "sigmoid": unary(torch.sigmoid), "tanh": unary(torch.tanh),
    "silu": unary(functional.silu), "softplus": exact(functional.softplus), "softsign": exact(functional.softsign),
    "erf": exact(torch.erf), "sqrt": exact(torch.sqrt), "gelu": gelu, "relu6": unary(functional.relu6),
    "rsqrt": with_epsilon(torch.rsqrt, 1e-12), "inverse": with_epsilon(torch.reciprocal, 1e-4),
    "log": with_epsilon(torch.log, 1e-45), "leaky_relu": parametric(functional.leaky_relu, ("alpha", 0.01)),
    "elu": parametric(functional.elu, ("alpha", 1.0)),
    "sigmoid_hard": parametric(hard_sigmoid, ("alpha", 0.2), ("beta", 0.5)),
    "threshold": parametric(torch.clamp_min, ("alpha", 0.0)), "clip": clip,
    "add": binary(torch.add), "sub": binary(torch.sub), "mul": binary(torch.mul), "real_div": divide,
    "floor_div": binary(torch.floor_divide), "mod": binary(floor_mod), "pow": binary(torch.pow),
    "maximum": binary(torch.maximum), "minimum": binary(torch.minimum),
    "equal": binary(torch.eq), "not_equal": binary(torch.ne), "less": binary(torch.lt), "less_equal": binary(torch.le),
    "greater": binary(torch.gt), "greater_equal": binary(torch.ge), "logical_and": binary(torch.logical_and),
    "logical_or": binary(torch.logical_or), "logical_xor": binary(torch.logical_xor), "cast": cast, "select": select,
}  # fmt: skip
