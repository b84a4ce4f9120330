"""A package loaded and run: by kobako's interpreter here, by Core ML itself on macOS.

Both are driven alike: functions by name, one set of states, positions counted here.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from kobako.pipeline.contracts import FloatArray
from kobako.pipeline.embeddings import Table, open_table
from kobako.pipeline.errors import BadArtifact, UsageError
from kobako.pipeline.generate import TokenEngine

from .inspection import read_checked
from .mil.program import Program
from .selfdescription import PER_LAYER_INPUTS, SelfDescription, read_description

Array = npt.NDArray[Any]


class Session(Protocol):
    """A loaded package at the level of its functions."""

    def reset(self) -> None:
        """Zero all states."""

    def run(self, function: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs of one function. Raises BadArtifact."""
        ...

    def run_each(self, function: str, many: Sequence[Mapping[str, Array]]) -> Sequence[Mapping[str, Array]]:
        """Outputs of several runs of one function, as `Interpreter.run_each` explains. Raises BadArtifact."""
        ...

    def state(self, name: str) -> Array:
        """A copy of one state."""
        ...

    def close(self) -> None:
        """Give the memory back; nothing can be run afterwards."""
        ...


class CoreMLSession:
    """Core ML through coremltools; macOS only. One MLModel per function, one MLState for all."""

    def __init__(self, package: Path, functions: Sequence[str]) -> None:
        import coremltools as ct

        self._models = {
            name: ct.models.MLModel(str(package), function_name=name, compute_units=ct.ComputeUnit.CPU_AND_NE)
            for name in functions
        }
        self._first = functions[0]
        self.reset()

    def reset(self) -> None:
        """Begin with a new state, which Core ML fills with zeros."""
        self._state = self._models[self._first].make_state()

    def run(self, function: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Predict with the shared state. Raises BadArtifact when Core ML refuses or gives infinities."""
        try:
            outputs: dict[str, Array] = self._models[function].predict(dict(inputs), state=self._state)
        except RuntimeError as error:
            raise BadArtifact(f"Core ML cannot run {function}: {error}.", "Export the model again.") from error
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise BadArtifact(
                    f"{name} of {function} is infinite or NaN.", "On Linux, validate names the operation."
                )
        return outputs

    def run_each(self, function: str, many: Sequence[Mapping[str, Array]]) -> Sequence[Mapping[str, Array]]:
        """One run after the other."""
        return [self.run(function, inputs) for inputs in many]

    def state(self, name: str) -> Array:
        """A copy of one state."""
        return np.array(self._state.read_state(name))

    def close(self) -> None:
        """Let the models and the state go."""
        self._models.clear()
        del self._state


class CoreMLRuntime:
    """Fulfils `protocols.Runtime` and `contracts.LayerProbe` over a Session; `table` holds its per-layer inputs."""

    def __init__(self, session: Session, description: SelfDescription, table: Table | None = None) -> None:
        self._session, self.description, self._table = session, description, table
        self._fed: list[int] = []

    def reset(self) -> None:
        """Forget everything fed so far."""
        self._session.reset()
        self._fed = []

    def feed(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens; logits ``[V]`` float32 that follow the last. Raises UsageError beyond the context."""
        self._check(ids)
        chunk = self.description.prefill_tokens
        logits = np.empty(0, np.float32)
        for begin in range(0, len(ids), chunk):
            logits = self._append(ids[begin : begin + chunk])
        return logits

    def feed_each(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens, each through decode; logits ``[N, V]`` after each. Raises UsageError beyond the context."""
        self._check(ids)
        many = [
            self._inputs(input_ids=np.array([[one]], np.int32), position=np.array([len(self._fed) + number], np.int32))
            for number, one in enumerate(ids)
        ]
        outputs = self._session.run_each("decode", many)
        self._fed += [int(one) for one in ids]
        return np.stack([np.asarray(one["logits"], np.float32).reshape(-1) for one in outputs])

    def key_cache(self, layer: int) -> FloatArray:
        """Keys of `layer` for the tokens fed so far: ``[T, H, D]``. Raises UsageError for a layer that is not."""
        if not 0 <= layer < self.description.layers:
            raise UsageError(f"there is no layer {layer}: the model has {self.description.layers}.")
        keys = self._session.state(f"k_cache_{layer}")[0].astype(np.float32)
        return np.ascontiguousarray(keys.transpose(1, 0, 2)[: len(self._fed)])

    def close(self) -> None:
        """Give everything back."""
        self._session.close()

    def _check(self, ids: Sequence[int]) -> None:
        limit, known = self.description.context_tokens, self.description.vocabulary
        if not ids or min(ids) < 0 or max(ids) >= known:
            raise UsageError(f"token ids must be at least one, each from 0 to {known - 1}.")
        if len(self._fed) + len(ids) > limit:
            raise UsageError(
                f"{len(self._fed)} + {len(ids)} tokens exceed the context of {limit}.",
                "Shorten the prompt, or export with a larger --context.",
            )

    def _append(self, ids: Sequence[int]) -> FloatArray:
        """Append a chunk of a prompt through prefill, or through decode when one token is left."""
        if len(ids) == 1:
            return self.feed_each(ids)[0]
        chunk = self.description.prefill_tokens
        # A chunk must lie inside the cache as a whole; near its end, tokens already fed are fed again.
        start = min(len(self._fed), self.description.context_tokens - chunk)
        tokens = [*self._fed[start:], *ids]
        padded = np.zeros((1, chunk), np.int32)
        padded[0, : len(tokens)] = tokens
        last = np.array([len(tokens) - 1], np.int32)
        inputs = self._inputs(input_ids=padded, position=np.array([start], np.int32), last_index=last)
        logits = self._session.run("prefill", inputs)["logits"]
        self._fed += [int(one) for one in ids]
        return np.ascontiguousarray(logits, dtype=np.float32).reshape(-1)

    def _inputs(self, **numbers: Array) -> dict[str, Array]:
        """The inputs of a function, the rows of the table that its tokens need among them."""
        if self._table is None:
            return numbers
        return {**numbers, PER_LAYER_INPUTS: per_layer_inputs(self._table, numbers["input_ids"])}


def per_layer_inputs(table: Table, ids: Array) -> Array:
    """Float16 ``[1, T, L, W]`` of token ids ``[1, T]``: their rows, times what the model multiplies rows with.

    Tokens beyond the table, which stand for images and sounds, have the first row, as in Gemma 3n's own code.
    """
    rows = table.rows(np.where(ids[0] < table.layout.rows, ids[0], 0))
    return (rows * np.float32(table.layout.multiplier)).astype(np.float16)[None]


def open_runtime(
    package: Path, precision: Literal["float16", "float32"] = "float16", table: Path | None = None
) -> CoreMLRuntime:
    """Load a package, and the `table` of its per-layer inputs. `precision` is for the interpreter only.

    Raises BadArtifact.
    """
    program = read_checked(package)
    description = read_description(program.metadata)
    check_interface(program, description)
    rows = open_rows(program, description, table) if description.table else None
    if sys.platform == "darwin":
        return CoreMLRuntime(CoreMLSession(package, ("decode", "prefill")), description, rows)
    from .mil.interpreter import Interpreter

    return CoreMLRuntime(Interpreter(program, precision), description, rows)


def open_rows(program: Program, description: SelfDescription, path: Path | None) -> Table:
    """The table that a package reads its per-layer inputs from. Raises BadArtifact for another one, or none."""
    if path is None:
        raise BadArtifact(
            f"{program.path.name} reads per-layer inputs from a table that is not here.", "Pull it again."
        )
    table = open_table(path, read_ahead=False)
    layout, wanted = table.layout, program.functions["decode"].inputs.get(PER_LAYER_INPUTS)
    shape = (1, 1, layout.layers, layout.width)
    if (layout.model, layout.parameter) != (description.name, description.table):
        raise BadArtifact(f"{path} is the table of {layout.model}, not of {description.name}.", "Pull it again.")
    if wanted is None or wanted.shape != shape:
        raise BadArtifact(f"{program.path.name} does not take rows {shape} of {path.name}.", "Export the model again.")
    return table


def open_engine(directory: Path, package: str, table: Path | None = None) -> TokenEngine:
    """The greedy text engine over a package and the tokenizer beside it. Raises BadArtifact."""
    runtime = open_runtime(directory / package, table=table)
    name = f"Core ML, macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else "kobako's MIL interpreter"
    return TokenEngine(runtime, directory, runtime.description.stop_ids, name)


def check_interface(program: Program, description: SelfDescription) -> None:
    """Raise BadArtifact when the functions are not what the description promises."""
    wanted = {"decode": (1, 1), "prefill": (1, description.prefill_tokens)}
    for name, shape in wanted.items():
        function = program.functions.get(name)
        tokens = function.inputs.get("input_ids") if function else None
        if function is None or tokens is None or tokens.shape != shape or "logits" not in function.outputs:
            raise BadArtifact(f"{program.path.name} has no function {name} for tokens {shape}.", "Export again.")
        states = [f"{kind}_cache_{layer}" for layer in range(description.layers) for kind in "kv"]
        if missing := [state for state in states if state not in function.states]:
            raise BadArtifact(f"function {name} lacks the state {missing[0]}.", "Export the model again.")
