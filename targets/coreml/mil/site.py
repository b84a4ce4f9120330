"""Where one operation is compiled: what an implementation asks of its operands, and hands back.

A value of MIL type float16 exists in up to two forms: *narrow* (torch.float16, one rounding per operation done by
PyTorch itself) and *wide* (the same values in float32, for products that a phone accumulates in more than 16 bits,
and for weights and states, which are converted once and not at every step).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kobako.pipeline.errors import BadArtifact

from .program import Operation, TensorType

if TYPE_CHECKING:
    import torch

    from .compiler import Compiler

Env = list[Any]
"""The values of one run, by slot."""

Step = Callable[[Env], Any]
"""Computes an operation's output (a tuple of them if it has several) from the values so far."""

Builder = Callable[["Site"], Step]
"""Compiles one operation."""

_REQUIRED = object()


class Site:
    """One operation being compiled."""

    def __init__(self, compiler: Compiler, operation: Operation) -> None:
        self._compiler = compiler
        self.operation = operation
        self.wide_output = False

    @property
    def kind(self) -> TensorType:
        """The type of the first output."""
        return self.operation.outputs[0][1]

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of the first output in its narrow form."""
        return self._compiler.dtype(self.kind.dtype)

    def has(self, key: str) -> bool:
        """Whether the operation has the input `key`."""
        return bool(self.operation.inputs.get(key))

    def arg(self, key: str) -> int:
        """The slot of an input in narrow form. Raises BadArtifact when there is none."""
        return self.args(key)[0]

    def args(self, key: str) -> list[int]:
        """The slots of a list input, in narrow form."""
        return [self._compiler.slot(operand, wide=False) for operand in self._operands(key)]

    def matrix(self, key: str) -> Callable[[Env], Any]:
        """An input in narrow form; a constant for which there is no room is made when it is asked for."""
        if fresh := self._compiler.fresh(self._operands(key)[0]):
            return lambda env: fresh()
        slot = self.arg(key)
        return lambda env: env[slot]

    def rows(self, key: str) -> Callable[[list[int]], Any] | None:
        """A function that gives rows of an input by number, when it is a stored matrix: only those are made."""
        return self._compiler.some_rows(self._operands(key)[0])

    def wide(self, key: str) -> int:
        """The slot of an input in wide form."""
        return self._compiler.slot(self._operands(key)[0], wide=True)

    def wides(self, key: str) -> list[int]:
        """The slots of a list input, in wide form."""
        return [self._compiler.slot(operand, wide=True) for operand in self._operands(key)]

    def is_constant(self, key: str) -> bool:
        """Whether an input is known before the program runs."""
        return self._compiler.known(self._operands(key)[0]) is not None

    def is_stored(self, key: str) -> bool:
        """Whether an input is a constant of the program."""
        return self._compiler.constant(self._operands(key)[0]) is not None

    def is_zero(self, key: str) -> bool:
        """Whether an input is a constant of zeros."""
        known = self._compiler.known(self._operands(key)[0])
        return known is not None and not known.any()

    def derived(self, key: Any, step: Step) -> int:
        """The slot of something computed once per run and shared by all operations that ask with an equal `key`."""
        return self._compiler.derived(key, step)

    def name(self, key: str) -> str:
        """The name of a value given by name, such as a state. Raises BadArtifact."""
        operand = self._operands(key)[0]
        if not isinstance(operand, str):
            raise self.error(f"its input {key} is not a named value")
        return operand

    def value(self, key: str, default: Any = _REQUIRED) -> Any:
        """An input that must be constant, as Python numbers, lists or a string. Raises BadArtifact."""
        if not self.has(key):
            if default is _REQUIRED:
                raise self.error(f"its input {key} is missing")
            return default
        known = self._compiler.known(self._operands(key)[0])
        if known is None:
            raise self.error(f"its input {key} must be constant")
        return known if isinstance(known, str) else known.tolist()

    def numbers(self, key: str) -> Callable[[Env], list[int]]:
        """A function that gives an integer vector, constant or computed."""
        if self.is_constant(key):
            fixed = self.value(key)
            return lambda env: fixed
        slot = self.arg(key)
        return lambda env: env[slot].tolist()

    def shape(self, key: str) -> tuple[int, ...]:
        """The declared static shape of an input."""
        return self._compiler.type_of(self._operands(key)[0]).shape

    def inplace(self, key: str) -> bool:
        """Whether the value of `key` may be overwritten: a state read that nothing else looks at."""
        return self._compiler.written_in_place(self._operands(key)[0])

    @property
    def states(self) -> dict[str, Any]:
        """The program's states, by name; wide tensors."""
        return self._compiler.states

    @property
    def narrow(self) -> bool:
        """Whether the first output is rounded to float16."""
        return self._compiler.is_narrow(self.dtype)

    def rounded(self, step: Step) -> Step:
        """`step`, whose result is wide, with its result rounded to the output's type."""
        if not self.narrow:
            return step
        return lambda env: step(env).half()

    def error(self, what: str) -> BadArtifact:
        """A BadArtifact that names this operation."""
        output = self.operation.outputs[0][0] if self.operation.outputs else "nothing"
        return BadArtifact(f"operation {self.operation.type} ({self.operation.name} → {output}): {what}.")

    def _operands(self, key: str) -> Sequence[Any]:
        if not self.has(key):
            raise self.error(f"its input {key} is missing")
        return self.operation.inputs[key]
