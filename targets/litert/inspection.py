"""What is inside a .tflite or a .litertlm, as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import container
from .modelfile import ModelFile, open_model, signatures, tensors, type_name


def inspect(path: Path) -> Mapping[str, Any]:
    """Signatures, operators and bytes by type; of a container its sections and metadata too. Raises BadArtifact."""
    if path.suffix != ".litertlm":
        return {"format": "tflite", "size_bytes": path.stat().st_size, **describe_model(open_model(path))}
    section = container.model_section(path)
    listed = [
        {"kind": one.kind, "size_bytes": one.end - one.begin, "attributes": dict(one.attributes)}
        for one in container.sections(path)
    ]
    return {
        "format": "litertlm",
        "size_bytes": path.stat().st_size,
        "sections": listed,
        "metadata": container.read_metadata(path),
        "model": describe_model(open_model(path, section.begin, section.end)),
    }


def describe_model(file: ModelFile) -> dict[str, Any]:
    """Signatures, operators of each, and what the constants weigh."""
    described = signatures(file)
    graphs = file.subgraphs()
    for signature in described.values():
        graph = graphs[signature["subgraph"]]
        codes = [graph.Operators(index).OpcodeIndex() for index in range(graph.OperatorsLength())]
        signature["operators"] = dict(Counter(file.opcode_name(code) for code in codes).most_common())
    return {"signatures": described, "constant_bytes": constant_bytes(file)}


def constant_bytes(file: ModelFile) -> dict[str, int]:
    """Bytes of constants by type; a buffer that several tensors share counts once."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for graph in file.subgraphs():
        for tensor in tensors(graph):
            if tensor.Buffer() not in seen:
                seen.add(tensor.Buffer())
                kind = type_name(tensor.Type())
                sizes[kind] = sizes.get(kind, 0) + len(file.buffer(tensor.Buffer()))
    return {kind: size for kind, size in sorted(sizes.items()) if size}
