"""One MIL function → a flat list of closures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from kobako.pipeline.errors import BadArtifact

from .ops import table
from .program import Function, Literal, Operand, Operation, TensorType
from .site import Env, Site, Step
from .weights import CONSTEXPR, Constants, by_rows

Target = int | tuple[int, ...]
"""The slot of an operation's result, or those of several."""

PROPAGATING = frozenset({
    "abs", "add", "cast", "concat", "conv", "cumsum", "expand_dims", "identity", "layer_norm", "linear", "matmul",
    "mul", "read_state", "reduce_mean", "reduce_sum", "reduce_sum_square", "reshape", "square", "squeeze",
    "stack", "sub", "tile", "transpose", "write_state",
})  # fmt: skip
"""Operations whose output is infinite or NaN whenever an input element is: what only these consume need no look."""


@dataclass
class Compiled:
    """A function ready to run.

    Attributes:
        steps: closures, where each result goes, and the operation it came from (None for a change of form).
        constants: the environment a run starts from.
        spent: for each step, slots that nothing looks at after it.
        watched: slots to look for infinities and NaN in, after a run.
        floats: slots of every floating-point output, with the operation that made it, in order.
        abreast: whether several runs may go operation by operation: each state is written where it lies, at a place
            that is computed. That the places differ, and that a run looks at none of later ones, is not checked.
    """

    function: Function
    inputs: dict[str, int]
    outputs: dict[str, int]
    steps: list[tuple[Step, Target, Operation | None]] = field(default_factory=list)
    constants: Env = field(default_factory=list)
    spent: list[tuple[int, ...]] = field(default_factory=list)
    watched: list[int] = field(default_factory=list)
    floats: list[tuple[int, Operation]] = field(default_factory=list)
    abreast: bool = True


class Compiler:
    """Compiles one function. `states` is shared by all functions of a program, `constants` too."""

    def __init__(self, function: Function, constants: Constants, states: dict[str, Any], half: torch.dtype) -> None:
        self.function, self.states, self.half = function, states, half
        self._constants = constants
        self._types = function.types()
        self._literals: dict[str, Literal | Operation] = {}
        self._slots: dict[tuple[Any, bool], int] = {}
        self._env: Env = []
        self._known: dict[str, Any] = {}
        self._asked: set[int] = set()
        self._last_step: dict[int, int] = {}
        self._consumers = Counter(name for operation in function.operations for name in operands(operation))
        self._updates = {op.outputs[0][0]: op for op in function.operations if op.type == "slice_update"}
        self._reads = {op.outputs[0][0]: op for op in function.operations if op.type == "read_state"}
        inputs = {name: self._new(name) for name in function.inputs}
        self.result = Compiled(function, inputs, {})

    def compile(self) -> Compiled:
        """Compile all operations. Raises BadArtifact, naming the operation, for what is not known."""
        builders = table()
        for operation in self.function.operations:
            if operation.type == "const":
                self._literals[operation.outputs[0][0]] = operation.attributes["val"]
            elif operation.type in CONSTEXPR:
                self._literals[operation.outputs[0][0]] = operation
            elif operation.type in builders:
                self._operation(operation, builders)
            else:
                raise Site(self, operation).error("kobako's interpreter does not know it")
        self.result.outputs = {name: self.slot(name, wide=False) for name in self.function.outputs}
        self.result.constants = self._env
        self.result.watched = self._watched()
        self.result.spent = self._spent()
        self.result.abreast = self._abreast()
        return self.result

    def dtype(self, name: str) -> torch.dtype:
        """The torch type of a MIL type in narrow form."""
        if name == "float16":
            return self.half
        if name.startswith("float"):
            return torch.float32
        return torch.bool if name == "bool" else torch.int32

    def is_narrow(self, dtype: torch.dtype) -> bool:
        """Whether results of this type are rounded to float16."""
        return dtype == self.half == torch.float16

    def type_of(self, operand: Operand) -> TensorType:
        """The declared type of an operand."""
        if isinstance(operand, Literal):
            return operand.type
        if operand not in self._types:
            raise BadArtifact(f"function {self.function.name} uses {operand!r}, which nothing makes.")
        return self._types[operand]

    def known(self, operand: Operand) -> Any:
        """A constant operand as a narrow tensor or a string; None when it is computed at run time."""
        if isinstance(operand, str) and operand not in self._literals:
            return self._known.get(operand)
        source = operand if isinstance(operand, Literal) else self._literals[operand]
        if isinstance(source, Literal) and source.type.dtype == "string":
            return source.value.decode() if isinstance(source.value, bytes) else source.value
        return self._constants.tensor(source, self.dtype(self.type_of(operand).dtype))

    def slot(self, operand: Operand, *, wide: bool) -> int:
        """The slot of an operand in the form asked for; converts it where it exists in the other form only."""
        slot = self._found(operand, wide=wide)
        self._asked.add(slot)
        return slot

    def _found(self, operand: Operand, *, wide: bool) -> int:
        wide = wide and self.type_of(operand).dtype == "float16" and self.half == torch.float16
        key = (operand if isinstance(operand, str) else id(operand)), wide
        if key in self._slots:
            return self._slots[key]
        if isinstance(operand, Literal) or operand in self._literals:
            return self._constant(operand, key)
        other = self._slots.get((operand, not wide))
        if other is None:
            raise BadArtifact(f"function {self.function.name} uses {operand!r} before it is made.")
        slot = self._new(operand, wide=wide)
        self._asked.add(other)
        step: Step = (lambda env: env[other].float()) if wide else (lambda env: env[other].half())
        if operand in self._known:
            self._env[slot] = step(self._env)
        else:
            self.result.steps.append((step, slot, None))
        return slot

    def fresh(self, operand: Operand) -> Callable[[], Any] | None:
        """What makes a constant operand in narrow form, if there is no room to keep it."""
        source = self.constant(operand)
        if source is None:
            return None
        dtype = self.dtype(self.type_of(operand).dtype)
        return None if self._constants.resident(source, dtype) else lambda: self._constants.fresh(source, dtype)

    def some_rows(self, operand: Operand) -> Callable[[list[int]], Any] | None:
        """What makes rows of a constant operand by number, if it is a matrix stored so."""
        source = self.constant(operand)
        if source is None or isinstance(source, Literal) or not by_rows(source):
            return None
        matrix, dtype, last = source, self.dtype(self.type_of(operand).dtype), self.type_of(operand).shape[0] - 1

        def rows(numbers: list[int]) -> torch.Tensor:
            if not all(0 <= one <= last for one in numbers):
                raise IndexError(f"rows {min(numbers)}…{max(numbers)} of {last + 1}")
            return torch.cat([self._constants.rows(matrix, one, one + 1) for one in numbers]).to(dtype)

        return rows

    def constant(self, operand: Operand) -> Literal | Operation | None:
        """The stored constant behind an operand, if it is one."""
        return operand if isinstance(operand, Literal) else self._literals.get(operand)

    def derived(self, key: Any, step: Step) -> int:
        """A slot for a helper value, computed before whatever asked for it; one per `key`."""
        if (key, False) not in self._slots:
            self.result.steps.append((step, self._new(key), None))
        self._asked.add(self._slots[key, False])
        return self._slots[key, False]

    def written_in_place(self, operand: Operand) -> bool:
        """Whether `operand` is a state, read for one slice_update and written back before it is read again.

        It may then be changed where it lies.
        """
        if not isinstance(operand, str) or operand not in self._reads or self._consumers[operand] != 1:
            return False
        touches = self._touches(self._reads[operand].inputs["input"][0])
        if touches[0] is not self._reads[operand] or len(touches) < 2 or touches[1].type != "write_state":
            return False
        update = self._updates.get(str(touches[1].inputs["data"][0]))
        return update is not None and update.inputs["x"][0] == operand

    def _touches(self, state: Operand) -> list[Operation]:
        """What reads or writes a state, in order."""
        both = [op for op in self.function.operations if op.type in ("read_state", "write_state")]
        return [op for op in both if op.inputs["input"][0] == state]

    def _constant(self, operand: Operand, key: tuple[Any, bool]) -> int:
        source = operand if isinstance(operand, Literal) else self._literals[operand]
        dtype = torch.float32 if key[1] else self.dtype(self.type_of(operand).dtype)
        self._slots[key] = len(self._env)
        self._env.append(self._constants.tensor(source, dtype))
        return self._slots[key]

    def _new(self, name: Any, *, wide: bool = False) -> int:
        self._slots[name, wide] = len(self._env)
        self._env.append(None)
        return self._slots[name, wide]

    def _operation(self, operation: Operation, builders: Mapping[str, Any]) -> None:
        site = Site(self, operation)
        step = builders[operation.type](site)
        wide = site.wide_output and self.half == torch.float16
        slots = tuple(self._new(name, wide=wide) for name, _ in operation.outputs)
        if self._foldable(operation):
            results = step(self._env)
            results = results if len(slots) > 1 else [results]
            for (name, _), slot, result in zip(operation.outputs, slots, results, strict=True):
                self._env[slot] = self._known[name] = result
            return
        target: Target = slots[0] if len(slots) == 1 else (slots or len(self._env))
        if not slots:
            self._env.append(None)  # a place for the nothing that write_state returns
        self._last_step |= dict.fromkeys((*self._asked, *slots), len(self.result.steps))
        self._asked.clear()
        self.result.steps.append((step, target, operation))
        floats = [s for s, (_, kind) in zip(slots, operation.outputs, strict=True) if kind.dtype.startswith("float")]
        self.result.floats += [(slot, operation) for slot in floats]

    def _foldable(self, operation: Operation) -> bool:
        operands = [one for many in operation.inputs.values() for one in many]
        constant = all(isinstance(o, Literal) or o in self._literals or o in self._known for o in operands)
        return constant and bool(operands) and operation.type not in ("read_state", "write_state")

    def _abreast(self) -> bool:
        for operation in self.function.operations:
            if operation.type == "write_state":
                update = self._updates.get(str(operation.inputs["data"][0]))
                if update is None or not self.written_in_place(update.inputs["x"][0]):
                    return False
                if not update.inputs.get("begin") or self.known(update.inputs["begin"][0]) is not None:
                    return False
        return True

    def _spent(self) -> list[tuple[int, ...]]:
        kept = {*self.result.watched, *self.result.outputs.values(), *self._asked}  # asked for by no step: by outputs
        spent: list[list[int]] = [[] for _ in self.result.steps]
        for slot, number in self._last_step.items():
            if self._env[slot] is None and slot not in kept:
                spent[number].append(slot)
        return [tuple(slots) for slots in spent]

    def _watched(self) -> list[int]:
        """Slots of computed floats that something other than a propagating operation consumes."""
        ends = (operation for operation in self.function.operations if operation.type not in PROPAGATING)
        last = {name for operation in ends for name in operands(operation)}
        last.update(self.function.outputs)
        names = {slot: name for (name, _), slot in self._slots.items()}
        return [slot for slot, operation in self.result.floats if names[slot] in last and operation.type not in MOVING]


def operands(operation: Operation) -> list[str]:
    """Names of all values an operation uses, in order, repeated ones too."""
    return [one for many in operation.inputs.values() for one in many if isinstance(one, str)]


MOVING = frozenset({"read_state", "slice_update", "fill", "select", "gather", "slice_by_index", "split"})
"""Operations that make no new numbers: their float inputs are watched instead."""
