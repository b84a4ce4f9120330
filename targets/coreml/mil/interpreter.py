"""Runs a program read from disk: functions, states, float16 emulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from kobako.pipeline.errors import BadArtifact, UsageError
from kobako.pipeline.rows import cores

from .compiler import Compiled, Compiler, Target
from .program import Operation, Program
from .site import Env, Step
from .weights import Constants

Precision = Literal["float16", "float32"]
LARGE_BYTES = 1 << 30
"""A program with fewer bytes of weights runs on one thread: its products are small, proofs run side by side, and
waiting for a busy core at every product costs ten times more."""
Array = npt.NDArray[Any]


class Interpreter:
    """All functions of a program over one set of states.

    Args:
        program: what `read_package` gave.
        precision: ``float16`` rounds the output of every float16 operation, as a phone does; ``float32`` does not.
        record: keep the largest magnitude each operation has put out (slower; see `magnitudes`).
    """

    def __init__(self, program: Program, precision: Precision = "float16", *, record: bool = False) -> None:
        self.program = program
        self._half = torch.float16 if precision == "float16" else torch.float32
        self._constants = Constants(program, self._half)
        self._states: dict[str, torch.Tensor] = {}
        self._compiled: dict[str, Compiled] = {}
        self._checked: set[str] = set()
        self._largest: dict[str, float] | None = {} if record else None
        large = program.blob is not None and program.blob.size_bytes >= LARGE_BYTES
        self._threads = cores() if large else 1
        self.reset()

    def reset(self) -> None:
        """Fill every state with zeros."""
        for function in self.program.functions.values():
            for name, kind in function.states.items():
                self._states[name] = torch.zeros(kind.shape)

    def state(self, name: str) -> Array:
        """A copy of one state, float32. Raises UsageError for an unknown name."""
        if name not in self._states:
            raise UsageError(f"there is no state {name!r}.", f"States: {', '.join(sorted(self._states))}.")
        return self._states[name].float().numpy().copy()

    def close(self) -> None:
        """Give the memory back. A program's closures refer to each other: Python would find that only much later."""
        for compiled in self._compiled.values():
            compiled.steps.clear()
            compiled.constants.clear()
        self._compiled.clear()
        self._states.clear()
        self._constants.clear()

    def magnitudes(self) -> dict[str, float]:
        """The largest magnitude of every float output so far, by ``function/output name``; needs ``record=True``."""
        if self._largest is None:
            raise UsageError("magnitudes were not recorded.", "Make the Interpreter with record=True.")
        return dict(self._largest)

    def run(self, function: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one function; outputs as float32 or int32 arrays.

        Raises BadArtifact, naming the operation, for infinities, NaN and anything that cannot be computed.
        """
        return self.run_each(function, [inputs])[0]

    def run_each(self, function: str, many: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
        """Run one function several times, and each operation of all runs before the next: a matrix is read once.

        A run then finds in the states what the later ones have written as well. Where these write each its own place,
        and a run's mask hides the places after its own, as in causal decoding, the outputs are those of one run after
        the other: that is the caller's promise. A function that writes a state otherwise than in place, or always in
        the same one, is run so. Raises as `run` does.
        """
        compiled = self._function(function)
        if len(many) > 1 and not compiled.abreast:
            return [self.run(function, inputs) for inputs in many]
        given = [self._begin(compiled, inputs) for inputs in many]
        with torch.inference_mode(), threads(self._threads):
            envs = self._execute(compiled, [list(env) for env in given], keep=False)
            for number, env in enumerate(envs):
                if not finite([env[slot] for slot in compiled.watched]):
                    # Again with everything kept, to name the first; what a decoder writes is written there once more.
                    raise culprit(compiled, self._execute(compiled, [given[number]], keep=True)[0])
        self._checked.add(function)
        return [{name: to_numpy(env[slot]) for name, slot in compiled.outputs.items()} for env in envs]

    def _begin(self, compiled: Compiled, inputs: Mapping[str, Array]) -> Env:
        env = list(compiled.constants)
        for name, slot in compiled.inputs.items():
            env[slot] = self._input(compiled, name, inputs)
        return env

    def _execute(self, compiled: Compiled, envs: list[Env], *, keep: bool) -> list[Env]:
        """Run all steps on `envs` and give them back, all their values with `keep`, or what was not dropped after use.

        On a function's first run, results are held against the declared shapes.
        """
        operation, new = None, compiled.function.name not in self._checked
        try:
            for (step, target, operation), spent in zip(compiled.steps, compiled.spent, strict=True):
                for env, value in zip(envs, results(step, envs), strict=True):
                    if type(target) is int:
                        env[target] = value
                    else:
                        for slot, part in zip(target, value, strict=True):  # type: ignore[arg-type]
                            env[slot] = part
                    if operation and (new or self._largest is not None):
                        self._examine(compiled, operation, target, env)
                    if not keep:
                        for slot in spent:
                            env[slot] = None
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise named(operation, f"failed: {error}") from error
        return envs

    def _function(self, name: str) -> Compiled:
        if name not in self._compiled:
            if name not in self.program.functions:
                raise BadArtifact(f"there is no function {name!r}: only {', '.join(self.program.functions)}.")
            function = self.program.functions[name]
            try:
                with torch.inference_mode():
                    self._compiled[name] = Compiler(function, self._constants, self._states, self._half).compile()
            except (RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
                raise BadArtifact(
                    f"function {name} cannot be compiled: {error!r}.", "Export the model again."
                ) from error
        return self._compiled[name]

    def _input(self, compiled: Compiled, name: str, inputs: Mapping[str, Array]) -> torch.Tensor:
        kind = compiled.function.inputs[name]
        if name not in inputs:
            raise UsageError(f"function {compiled.function.name} needs the input {name!r} {kind.shape}.")
        values = np.asarray(inputs[name])
        if values.shape != kind.shape:
            raise UsageError(f"input {name!r} must have shape {kind.shape}, not {values.shape}.")
        dtype = self._half if kind.dtype == "float16" else torch.float32 if kind.dtype == "float32" else torch.int32
        return torch.from_numpy(np.ascontiguousarray(values)).to(dtype)

    def _examine(self, compiled: Compiled, operation: Operation, target: Target, env: Env) -> None:
        """Check the shapes that `operation` has put out; keep the largest magnitudes, if they are recorded."""
        check_shapes(operation, target, env)
        if self._largest is None:
            return
        for slot, (name, kind) in zip(slots_of(target), operation.outputs, strict=False):
            if kind.dtype.startswith("float"):
                key = f"{compiled.function.name}/{name}"
                self._largest[key] = max(self._largest.get(key, 0.0), float(env[slot].abs().max()))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def finite(values: list[torch.Tensor]) -> bool:
    """Whether all elements are finite; one pass over all of them, since a call per tensor would cost more."""
    if not values:
        return True
    flat = torch.cat([value.reshape(-1) for value in values])
    if flat.dtype == torch.float16:
        # All exponent bits set: infinity or NaN. On integers this is ten times as fast as isfinite.
        return int((flat.view(torch.int16) & 0x7C00).amax()) != 0x7C00
    return bool(torch.isfinite(flat).all())


def results(step: Step, envs: list[Env]) -> list[Any]:
    """What a step gives in each of several runs."""
    together = getattr(step, "together", None) if len(envs) > 1 else None
    made: list[Any] = together(envs) if together else [step(env) for env in envs]
    return made


def culprit(compiled: Compiled, env: Env) -> BadArtifact:
    """A BadArtifact that names the first operation whose output is infinite or NaN."""
    for slot, operation in compiled.floats:
        value = env[slot].float()
        if not torch.isfinite(value).all():
            what = "NaN" if torch.isnan(value).any() else "infinite"
            before = largest_input(compiled, env, operation)
            return named(operation, f"its output is {what} (largest input {before:g}; float16 ends at 65504)")
    return BadArtifact("a value is infinite or NaN.", "Export the model again.")


def largest_input(compiled: Compiled, env: Env, operation: Operation) -> float:
    """The largest finite magnitude among the computed inputs of `operation`, 0 if there are none."""
    made = {name: slot for slot, op in compiled.floats for name, _ in op.outputs}
    wanted = [made[o] for many in operation.inputs.values() for o in many if isinstance(o, str) and o in made]
    return max((float(env[slot].float().nan_to_num(0, 0, 0).abs().max()) for slot in wanted), default=0.0)


def check_shapes(operation: Operation, target: Target, env: Env) -> None:
    """Raise BadArtifact when a result's shape is not the declared one: Core ML would refuse the program."""
    for slot, (_, kind) in zip(slots_of(target), operation.outputs, strict=False):
        shape = tuple(env[slot].shape)
        if len(shape) != len(kind.shape) or any(b not in (-1, a) for a, b in zip(shape, kind.shape, strict=True)):
            raise named(operation, f"its output has shape {shape}, declared is {kind.shape}")


def slots_of(target: Target) -> tuple[int, ...]:
    """Where an operation's results lie."""
    return (target,) if isinstance(target, int) else target


def named(operation: Operation | None, what: str) -> BadArtifact:
    """A BadArtifact that names the operation and its output."""
    if operation is None:
        return BadArtifact(f"the program {what}.")
    output = operation.outputs[0][0] if operation.outputs else "nothing"
    return BadArtifact(f"operation {operation.type} ({operation.name} → {output}): {what}.", "Export the model again.")


def to_numpy(value: torch.Tensor) -> Array:
    """Float32 or integer NumPy copy of a result."""
    array: Array = (value.float() if value.is_floating_point() else value).numpy()
    return array.copy()
