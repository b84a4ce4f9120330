"""What is inside a .pte, for people and for the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .pte import PteFile, open_pte
from .xnngraph import operators, static_tensors


def inspect(path: Path) -> Mapping[str, Any]:
    """Methods, inputs, outputs, operators, delegates, sizes and metadata of a .pte. Raises BadArtifact."""
    with open_pte(path) as pte:
        names = pte.method_names()
        programs = [name for name in names if pte.method(name).inputs]
        return {
            "format": "ExecuTorch program",
            "file_bytes": len(pte.data),
            "methods": {name: describe_method(pte, name) for name in programs},
            "metadata": {name: pte.constant_method(name) for name in names if name not in programs},
            "constants_bytes": constants_bytes(pte),
            "named_data": {"entries": len(pte.named), "bytes": sum(item.size for item in pte.named.values())},
        }


def describe_method(pte: PteFile, name: str) -> dict[str, Any]:
    """One method: its signature, host operators by count, and its delegates."""
    plan = pte.method(name)
    host: Counter[str] = Counter()
    for instruction in plan.chains[0].instructions:
        index = getattr(instruction.instr_args, "op_index", None)
        if index is not None:
            operator = plan.operators[index]
            host[f"{operator.name}.{operator.overload}".rstrip(".")] += 1
    return {
        "inputs": [tensor(plan, index) for index in plan.inputs],
        "outputs": [tensor(plan, index) for index in plan.outputs],
        "host_operators": dict(host.most_common()),
        "delegates": describe_delegates(pte, name),
        "planned_memory_bytes": sum(int(size) for size in plan.non_const_buffer_sizes),
    }


def describe_delegates(pte: PteFile, name: str) -> list[dict[str, Any]]:
    """Backend, payload size, and for XNNPACK the operators and constant types of each delegate."""
    found = []
    for backend, payload in pte.delegate_payloads(name):
        item: dict[str, Any] = {"backend": backend, "payload_bytes": len(payload)}
        if backend == "XnnpackBackend":
            item["operators"] = dict(Counter(operators(payload)).most_common())
            item["constants"] = dict(Counter(constant.dtype for constant in static_tensors(payload)))
        found.append(item)
    return found


def tensor(plan: Any, index: int) -> dict[str, Any]:
    """Type and (largest) shape of a value."""
    value = plan.values[index].val
    if not hasattr(value, "scalar_type"):
        return {"type": type(value).__name__.lower()}
    return {"type": value.scalar_type.name.lower(), "shape": [int(size) for size in value.sizes]}


def constants_bytes(pte: PteFile) -> int:
    """Size of the constants of host operators."""
    return pte.segments[pte.program.constant_segment.segment_index].size if pte.segments else 0
