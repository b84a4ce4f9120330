"""``model.pte`` in ExecuTorch's C++ runtime: logits, and the hidden states of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kobako.pipeline.contracts import Exported, FloatArray
from kobako.pipeline.errors import BadArtifact, UsageError

from .pte import HINT, open_pte


def load_module(path: Path, method: str = "forward") -> Any:
    """The .pte, which must have this `method`, as a loaded C++ module. Raises BadArtifact.

    Operators outside the core register themselves when their libraries are imported: first those, then the file.
    """
    with open_pte(path) as pte:
        if method not in pte.method_names():
            raise BadArtifact(f"{path.name} has no method {method!r}.", "Give the .pte of a language model.")
    import executorch.extension.llm.custom_ops.custom_ops
    import executorch.kernels.quantized  # noqa: F401
    from executorch.extension.pybindings.portable_lib import Verification, _load_for_executorch

    try:
        return _load_for_executorch(str(path), program_verification=Verification.InternalConsistency)
    except RuntimeError as error:
        raise BadArtifact(f"ExecuTorch does not load {path.name}: {error}.", HINT) from error


class PteRuntime:
    """Fulfils `protocols.Runtime`.

    Resetting is setting the position to 0: attention reads slots below position + tokens only, and each of those has
    been written by then.
    """

    def __init__(self, exported: Exported) -> None:
        path = exported.directory / exported.files[0]
        self.module = load_module(path)
        with open_pte(path) as pte:
            self.context_tokens = int(pte.constant_method("get_max_context_len"))
            self.max_tokens = int(pte.constant_method("get_max_seq_len"))
        self.position = 0

    def reset(self) -> None:
        """Forget everything fed so far."""
        self.position = 0

    def feed(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens; logits ``[V]`` that follow the last. Raises UsageError beyond the context."""
        if not ids:
            raise UsageError("there are no tokens to feed.", "Feed at least one.")
        if self.position + len(ids) > self.context_tokens:
            raise UsageError(
                f"{self.position + len(ids)} tokens exceed the context of {self.context_tokens}.",
                "Export with a longer --context, or feed less.",
            )
        logits: Any = None
        for start in range(0, len(ids), self.max_tokens):
            chunk = list(ids[start : start + self.max_tokens])
            logits = run(self.module, chunk, self.position)[0]
            self.position += len(chunk)
        return np.ascontiguousarray(logits.reshape(-1))

    def close(self) -> None:
        """Give the module back."""
        self.module = None


def run(module: Any, ids: Sequence[int], position: int) -> list[npt.NDArray[np.float32]]:
    """One forward call; its outputs as arrays of their own. Raises BadArtifact when the runtime refuses."""
    import torch

    try:
        outputs = module.forward([torch.tensor([list(ids)]), torch.tensor([position])])
    except RuntimeError as error:
        raise BadArtifact(f"ExecuTorch failed to run {len(ids)} tokens at {position}: {error}.", HINT) from error
    return [output.numpy().copy() for output in outputs]


def probe_states(path: Path, ids: Sequence[int]) -> FloatArray:
    """Hidden states after each decoder layer, float32 ``[L, T, hidden]``, of a .pte made by `probe_export`."""
    states = run(load_module(path), ids, 0)[1:]
    if not states:
        raise BadArtifact(f"{path.name} has no hidden states among its outputs.", "Make it with probe_export.")
    return np.concatenate(states, axis=0)
