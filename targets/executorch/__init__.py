"""The ExecuTorch target: ``model.pte`` for XNNPACK on Android and iOS phones, and on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kobako.pipeline.contracts import Activations, Exported, ExportOptions, KvCache, Progress, Quantized, Recipe
from kobako.pipeline.protocols import EncoderRuntime, Engine, KvCost, Runtime, Seq2SeqSteps, StoredWeight


class ExecuTorch:
    """Fulfils `protocols.Target`; everything heavy is imported by the methods."""

    name = "executorch"
    title = "ExecuTorch"
    vendor_modules: tuple[str, ...] = ("executorch", "torchao")
    recipes: tuple[str, ...] = ("float16", "int8", "int4", "int4-small", "int4-nearest")
    kv_caches: Mapping[KvCache, KvCost] = {
        "float": KvCost(value_bytes=4),
        "int8": KvCost(value_bytes=1, vector_bytes=8),
    }
    suffixes: tuple[str, ...] = (".pte",)
    relative_cost = 2.0
    interpreted = False

    def activations(self, recipe: Recipe) -> Activations:
        """What an artifact of this recipe computes activations in."""
        from .export import activations

        return activations(recipe)

    def export(self, quantized: Quantized, options: ExportOptions, out: Path, progress: Progress) -> Exported:
        """See `export.export`, and for other kinds than decoders `encoder.export` and `seq2seq.export`."""
        from kobako.pipeline import families

        kind = families.get(quantized.model_type).kind
        if kind == "encoder":
            from .encoder import export as export_encoder

            return export_encoder(quantized, options, out, progress)
        if kind == "seq2seq":
            from .seq2seq import export as export_seq2seq

            return export_seq2seq(quantized, options, out, progress)
        from .export import export

        return export(quantized, options, out, progress)

    def runtime(self, exported: Exported) -> Runtime:
        """The artifact in ExecuTorch's C++ runtime, at the level of logits. Raises BadArtifact."""
        from .runtime import PteRuntime

        return PteRuntime(exported)

    def engine(self, exported: Exported) -> Engine:
        """The artifact in ExecuTorch's C++ TextLLMRunner. Raises BadArtifact."""
        from .engine import TextRunner

        return TextRunner(exported)

    def encoder(self, exported: Exported) -> EncoderRuntime:
        """An encoder's artifact in ExecuTorch's C++ runtime. Raises BadArtifact."""
        from .encoder import PteEncoder

        return PteEncoder(exported)

    def seq2seq(self, exported: Exported) -> Seq2SeqSteps:
        """An encoder-decoder's artifact in the same runtime. Raises BadArtifact."""
        from .seq2seq import PteSeq2Seq

        return PteSeq2Seq(exported)

    def stored_weights(self, exported: Exported) -> Iterator[StoredWeight]:
        """Every weight matrix, read back out of the bytes of ``model.pte``."""
        from .readback import stored_weights

        return stored_weights(exported.directory / exported.files[0])

    def inspect(self, path: Path) -> Mapping[str, Any]:
        """What is inside a .pte. Raises BadArtifact."""
        from .inspection import inspect

        return inspect(path)


TARGET = ExecuTorch()
