"""``model.tflite`` in LiteRT's CompiledModel: XNNPACK, caches kept in the runtime's own buffers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kobako.pipeline.contracts import FloatArray
from kobako.pipeline.errors import BadArtifact, UsageError

from .modelfile import open_model, signatures
from .trace import DECODE, LOGITS, key_name

THREADS = 2
MASKED = np.float32(-0.7 * np.finfo(np.float32).max)
"""What the LiteRT-LM engine adds to the score of a slot that must not be seen."""


class LiteRTRuntime:
    """Fulfils `protocols.Runtime` and `contracts.LayerProbe`. Raises BadArtifact for files it cannot run."""

    def __init__(self, path: Path, threads: int = THREADS) -> None:
        found = signatures(open_model(path))
        prefills = [name for name in found if name.startswith("prefill_")]
        if DECODE not in found or len(prefills) != 1:
            raise BadArtifact(f"{path.name} has signatures {sorted(found)}, not one prefill and one {DECODE}.")
        self._prefill = prefills[0]
        self._chunk = int(found[self._prefill]["inputs"]["tokens"]["shape"][1])
        self.context_tokens = int(found[DECODE]["inputs"]["mask"]["shape"][3])
        self._shapes = {name: tuple(value["shape"]) for name, value in found[DECODE]["inputs"].items()}
        self._vocabulary = int(found[DECODE]["outputs"][LOGITS]["shape"][-1])
        self._cache_names = [name for name in self._shapes if name.startswith("kv_cache_")]
        self._model = load_compiled(path, threads)
        self._open_buffers()

    def _open_buffers(self) -> None:
        model, names = self._model, self._cache_names
        self._inputs: dict[str, dict[str, Any]] = {
            signature: {
                name: model.create_input_buffer_by_name(signature, name) for name in ("tokens", "input_pos", "mask")
            }
            for signature in (self._prefill, DECODE)
        }
        self._logits = model.create_output_buffer_by_name(DECODE, LOGITS)
        # two sets that change places at every step, as in the engine: no cache ever passes through numpy
        self._caches = {name: model.create_input_buffer_by_name(DECODE, name) for name in names}
        self._next_caches = {name: model.create_output_buffer_by_name(DECODE, name) for name in names}
        self.reset()

    def reset(self) -> None:
        """Forget everything fed so far."""
        self._position = 0
        for buffers in (self._caches, self._next_caches):
            for name, buffer in buffers.items():
                buffer.write(np.zeros(self._shapes[name], np.float32))

    def feed(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens; logits ``[V]`` that follow the last. Raises UsageError beyond the context."""
        if not ids:
            raise UsageError("no token to feed.")
        if self._position + len(ids) > self.context_tokens:
            raise UsageError(f"{self._position} + {len(ids)} tokens do not fit the context of {self.context_tokens}.")
        ahead = list(ids[:-1])
        # a chunk is always written whole: near the end of the cache it would be moved back over older slots
        while ahead and self._position + self._chunk <= self.context_tokens:
            self._run(self._prefill, ahead[: self._chunk], self._chunk)
            ahead = ahead[self._chunk :]
        for token in ahead:
            self._run(DECODE, [token], 1)
        self._run(DECODE, [ids[-1]], 1)
        return np.asarray(self._logits.read(self._vocabulary, np.float32))

    def _run(self, signature: str, ids: Sequence[int], width: int) -> None:
        first, count = self._position, len(ids)
        tokens = np.zeros((1, width), np.int32)
        tokens[0, :count] = ids
        inputs = self._inputs[signature]
        inputs["tokens"].write(tokens)
        inputs["input_pos"].write(first + np.arange(width, dtype=np.int32))
        inputs["mask"].write(causal_mask(first, width, self.context_tokens))
        outputs = dict(self._next_caches)
        if signature == DECODE:
            outputs[LOGITS] = self._logits
        self._model.run_by_name(signature, {**inputs, **self._caches}, outputs)
        self._caches, self._next_caches = self._next_caches, self._caches
        self._position += count

    def key_cache(self, layer: int) -> FloatArray:
        """Keys of `layer` for the tokens fed so far, after rotary embedding: ``[T, H, D]``."""
        name = key_name(layer)
        shape = self._shapes[name]
        keys = self._caches[name].read(int(np.prod(shape)), np.float32).reshape(shape)
        return np.ascontiguousarray(keys[0, :, : self._position].transpose(1, 0, 2))

    def close(self) -> None:
        """Give everything back."""
        self._inputs, self._caches, self._next_caches, self._logits = {}, {}, {}, None
        if self._model is not None:
            self._model.close()
        self._model = None


def causal_mask(first: int, tokens: int, slots: int) -> npt.NDArray[np.float32]:
    """Float32 ``[1, 1, T, S]``: 0 where a token may look, MASKED elsewhere."""
    visible = np.arange(slots)[None, :] <= first + np.arange(tokens)[:, None]
    return np.where(visible, np.float32(0), MASKED)[None, None].astype(np.float32)


def load_compiled(path: Path, threads: int) -> Any:
    """A .tflite loaded for the CPU. Raises BadArtifact."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import Options

    options = Options.create()
    options.hardware_accelerators = HardwareAccelerator.CPU
    options.cpu_options.num_threads = threads
    try:
        return CompiledModel.from_file(str(path), options=options)
    except (RuntimeError, ValueError) as error:
        raise BadArtifact(f"LiteRT cannot load {path.name}: {error}", "Build it again.") from error
