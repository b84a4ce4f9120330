"""The frozen values of mixed precision: what is asked for, what each part loses, and what there is to choose from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a mixture of 4 and 8 bits must meet: a size, a loss, or both (then the smallest that is good enough)."""

    size_bytes: int | None = None
    loss_nats: float | None = None

    def words(self) -> str:
        """For people."""
        size = [] if self.size_bytes is None else [f"{self.size_bytes / 1e6:.1f} MB"]
        return " and ".join([*size, *([] if self.loss_nats is None else [f"{self.loss_nats:g} nats"])])

    def recipe_name(self) -> str:
        """Name of the recipe that meets it, fit for file names."""
        size = [] if self.size_bytes is None else [f"{self.size_bytes / 1e6:g}mb"]
        return "-".join(["mixed", *size, *([] if self.loss_nats is None else [f"kl{self.loss_nats:g}"])])


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a model that is widened as a whole: its loss (KL in nats) when it alone is at 4 bits, and its bytes."""

    name: str
    parameters: tuple[str, ...]
    loss_nats: float
    narrow_bytes: int
    wide_bytes: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What each part loses at 4 bits, and what the whole loses at 4 bits, at 8 bits, and by int8 activations alone."""

    parts: tuple[Part, ...]
    narrow_loss_nats: float
    wide_loss_nats: float
    activations_nats: float


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A point of the size-quality curve: which parts are wide, bytes of the weights, and the KL to expect.

    Attributes:
        loss_nats: with activations rounded to int8 as ExecuTorch and LiteRT do; `weights_loss_nats`: without.
    """

    wide: tuple[str, ...]
    weights_bytes: int
    weights_loss_nats: float
    loss_nats: float
