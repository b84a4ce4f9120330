"""Host program and delegates → the bytes of ``model.pte``.

What XNNPACK does not have (cache, attention, embedding lookup, position rows) stays a short host program that calls one
delegate per segment. It is exported again, now a few nodes a layer, and goes through ExecuTorch's own passes.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from kobako.pipeline.contracts import Progress
from torch import fx, nn

from .delegates import Delegate, Writer
from .fuse import AND
from .graph import OWN_PREFIX, Flat, Tensors
from .pte import INSIDE, NAMES_KEY
from .segments import Segment, Step
from .tables import is_table, key_of, put_back, stand_in

BACKEND = "XnnpackBackend"
DATA_ALIGNMENT = 16


class OutputShapes:
    """Stands for a delegate's original program while the host program is traced: it only knows output shapes."""

    def __init__(self, segment: Segment) -> None:
        places = {
            str(dim): (argument, axis)
            for argument, node in enumerate(segment.inputs)
            for axis, dim in enumerate(node.meta["val"].shape)
            if not isinstance(dim, int)
        }
        self.shapes = [
            [dim if isinstance(dim, int) else places[str(dim)] for dim in node.meta["val"].shape]
            for node in segment.outputs
        ]
        self.graph = fx.Graph()
        self.graph.output(tuple([0] * len(segment.outputs)))

    def module(self) -> Callable[..., list[torch.Tensor]]:
        """A function from the delegate's arguments to empty outputs."""

        def outputs(*args: torch.Tensor) -> list[torch.Tensor]:
            sizes = [[dim if isinstance(dim, int) else args[dim[0]].shape[dim[1]] for dim in s] for s in self.shapes]
            return [args[0].new_empty(size) for size in sizes]

        return outputs


def lowered_module(segment: Segment, delegate: Delegate) -> Any:
    """ExecuTorch's module for one delegate."""
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from executorch.exir.lowered_backend_module import LoweredBackendModule

    store = NamedDataStore()
    for key, data in delegate.data.items():
        store.add_named_data(key, data, DATA_ALIGNMENT)
    module = LoweredBackendModule(
        edge_program=OutputShapes(segment),
        backend_id=BACKEND,
        processed_bytes=delegate.payload,
        compile_specs=[],
        named_data_store_output=store.get_named_data_store_output(),
    )
    module.meta = {"debug_handle_map": {}}
    return module


def weight_names(keys: Mapping[str, str], aliases: Mapping[str, str], tensors: Tensors) -> dict[str, str]:
    """Hugging Face parameter name → key of its codes in the .pte; `aliases` names a tied head after its table.

    Where several are stored as one, the key is followed by the first of its rows and the one behind its last.
    """
    sides = {beside(head): beside(table) for head, table in aliases.items()}
    known, names = {**aliases, **sides}, {}
    for stored, key in keys.items():
        if not stored.endswith(".weight") or stored.startswith(OWN_PREFIX):
            continue
        parts, begin = stored.split(AND), 0
        for part in parts:
            name = part.removeprefix(INSIDE)
            end = begin + len(tensors[part])
            names[known.get(name, name)] = f"{key} {begin} {end}" if len(parts) > 1 else key
            begin = end
    return names


def beside(name: str) -> str:
    """The name of the layer that holds the shifts of a matrix: ``X.weight`` → ``X.side.weight``."""
    return name.removesuffix("weight") + "side.weight"


class Lowering:
    """Writes the delegates one after the other; remembers the data key of each constant.

    Attributes:
        tables: what host operators look up, by the key of its stand-in in the host program.
    """

    def __init__(
        self, flat: Flat, steps: Sequence[Step], max_tokens: int, aliases: Mapping[str, str],
        lookups: Mapping[str, str], before: Lowering | None = None,
    ) -> None:  # fmt: skip
        """`lookups`: names of what host operators look up, by the entry that tells them, in the file's last method.

        `before`: of the method before it.
        """
        self.flat = flat
        self.aliases = aliases
        self.lookups = lookups
        self.last = [step.segment for step in steps if step.segment is not None][-1]
        self.max_tokens = max_tokens
        self.keys: dict[str, str] = dict(before.keys if before else {})
        self.names: dict[str, str] = dict(before.names if before else {})
        self.tables: dict[bytes, torch.Tensor] = {}

    def held(self, node: fx.Node) -> torch.Tensor:
        """What the host program holds of a constant: a stand-in, where it is a table."""
        tensor = self.flat.tensors[str(node.target)]
        if not is_table(node):
            return tensor
        rows = stand_in(tensor)
        self.tables[key_of(rows)] = tensor
        return rows

    def module(self, segment: Segment) -> Any:
        """ExecuTorch's module for the delegate of a segment; the last one also holds the names of all weights."""
        delegate = Writer(segment, self.flat.tensors, self.max_tokens).write()
        self.keys.update(delegate.keys)
        self.names.update(weight_names(delegate.keys, self.aliases, self.flat.tensors))
        if segment is self.last and self.lookups:
            names = {**self.lookups, **self.names}
            delegate.data[NAMES_KEY] = json.dumps(names, separators=(",", ":")).encode()
        return lowered_module(segment, delegate)


def host_module(flat: Flat, steps: Sequence[Step], lowering: Lowering, progress: Progress) -> fx.GraphModule:
    """The program with each segment replaced by a call of its delegate."""
    root, graph = nn.Module(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:  # a constant, met for the first time
            name = str(node.target).replace(".", "_")
            root.register_buffer(name, lowering.held(node))
            copies[node] = graph.get_attr(name)
        return copies[node]

    for node in flat.graph.nodes:
        if node.op == "placeholder":
            copies[node] = graph.node_copy(node)
    for index, step in enumerate(steps):
        progress(index / len(steps), f"XNNPACK delegate {index} of {len(steps)}")
        for node in step.host:
            copies[node] = graph.node_copy(node, copied)
        if step.segment is not None:
            root.add_module(f"delegate_{index}", lowering.module(step.segment))
            call = graph.call_module(f"delegate_{index}", tuple(copied(node) for node in step.segment.inputs))
            for position, node in enumerate(step.segment.outputs):
                copies[node] = graph.call_function(operator.getitem, (call, position))
    output = next(node for node in flat.graph.nodes if node.op == "output")
    graph.node_copy(output, copied)
    return fx.GraphModule(root, graph)


@dataclass(frozen=True)
class Method:
    """One entry of a program: the host module, arguments to trace it with, which of their dimensions vary, and what
    the module looks up, by the key of the stand-in that it holds (`Lowering.tables`).
    """

    module: nn.Module
    example: tuple[torch.Tensor, ...]
    dynamic: Any
    tables: Mapping[bytes, torch.Tensor] = field(default_factory=dict)


def executorch_program(methods: Mapping[str, Method], constants: Mapping[str, Any]) -> Any:
    """Export the host programs and run ExecuTorch's passes: memory plan, out variants, emission.

    The result has a method ``write_to_file``, which reads the weights.
    """
    from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
    from executorch.exir._serialize._serialize import serialize_for_executorch
    from executorch.exir.passes import MemoryPlanningPass

    with torch.no_grad():
        programs = {
            name: torch.export.export(one.module, one.example, dynamic_shapes=one.dynamic, strict=False)
            for name, one in methods.items()
        }
    config = EdgeCompileConfig(_check_ir_validity=False)
    edge = to_edge(programs, constant_methods=dict(constants), compile_config=config)
    planning = MemoryPlanningPass(alloc_graph_input=False)
    backend = ExecutorchBackendConfig(extract_delegate_segments=True, memory_planning_pass=planning)
    emitted: Any = edge.to_executorch(backend)
    put_back(emitted.executorch_program, {key: table for one in methods.values() for key, table in one.tables.items()})
    return serialize_for_executorch(emitted._emitter_output, backend, emitted._data_serializer, emitted._named_data)[0]
