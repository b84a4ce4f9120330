"""How an app reads one text with an encoder's file, for the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .markdown import block, text


def run_snippet(data: Mapping[str, Any], target: str, title: str, model: str) -> str:
    """How an app reads one text, in the target's own runtime; `model` is the path inside the package."""
    writers = {"executorch": _executorch, "coreml": _coreml, "litert": _litert}
    if target not in writers:
        return ""
    language, lines, intro = writers[target](model, int(data["context_tokens"]))
    after = "`ids` are the tokens of the text with the tokenizer's special ones; `mask` is 1 for each of them."
    return f"With {text(title)}, {intro}:\n\n{block(chr(10).join(lines), language)}\n\n{after}"


def _executorch(model: str, _context: int) -> tuple[str, list[str], str]:
    lines = [
        "from executorch.runtime import Runtime",
        "import executorch.kernels.quantized  # registers the embedding's operator",
        "import torch",
        "",
        f'forward = Runtime.get().load_program({json.dumps(model)}).load_method("forward")',
        "answer = forward.execute([torch.tensor([ids]), torch.tensor([mask])])[0]",
    ]
    return "python", lines, "in Python (its C++ runtime)"


def _coreml(model: str, context: int) -> tuple[str, list[str], str]:
    lines = [
        f"let compiled = try await MLModel.compileModel(at: package)  // {model}",
        "let options = MLModelConfiguration()",
        f'options.functionName = "encode_{context}"  // shorter texts: see kobako inspect',
        "let model = try await MLModel.load(contentsOf: compiled, configuration: options)",
        f"let answer = try await model.prediction(from: inputs)  // input_ids and mask, int32 [1, {context}]",
    ]
    return "swift", lines, "in Swift (iOS 18, macOS 15 or later)"


def _litert(model: str, context: int) -> tuple[str, list[str], str]:
    lines = [
        "from ai_edge_litert.interpreter import Interpreter",
        "import numpy as np",
        "",
        f"interpreter = Interpreter({json.dumps(model)})",
        f'encode = interpreter.get_signature_runner("encode_{context}")  # shorter texts: see kobako inspect',
        f"padded = np.zeros((2, 1, {context}), np.int32)",
        "padded[0, 0, : len(ids)], padded[1, 0, : len(ids)] = ids, mask",
        'answer = encode(ids=padded[0], mask=padded[1])["answer"]',
    ]
    return "python", lines, "in Python (`pip install ai-edge-litert`)"
