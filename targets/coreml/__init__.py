"""The Core ML target: one ``model.mlpackage`` with ``prefill`` and ``decode`` over shared weights and KV states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kobako.pipeline.contracts import Activations, Exported, ExportOptions, KvCache, Progress, Quantized, Recipe
from kobako.pipeline.embeddings import table_path
from kobako.pipeline.protocols import EncoderRuntime, Engine, KvCost, Runtime, Seq2SeqSteps, StoredWeight

PACKAGE = "model.mlpackage"


class CoreML:
    """Fulfils `protocols.Target`; everything heavy is imported by the methods."""

    name = "coreml"
    title = "Core ML"
    vendor_modules: tuple[str, ...] = ("coremltools",)
    recipes: tuple[str, ...] = ("float16", "int8", "int4", "int4-small", "int4-nearest")
    kv_caches: Mapping[KvCache, KvCost] = {"float": KvCost(value_bytes=2)}
    suffixes: tuple[str, ...] = (".mlpackage",)
    relative_cost = 3.0
    interpreted = True

    def activations(self, recipe: Recipe) -> Activations:
        """Core ML computes in float16 whatever the weights are stored as."""
        return "float16"

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
        """Core ML itself on macOS; elsewhere kobako's interpreter, emulating float16. Raises BadArtifact."""
        from .runtime import open_runtime

        return open_runtime(exported.directory / PACKAGE, table=table_path(exported))

    def engine(self, exported: Exported) -> Engine:
        """The runtime and the shipped tokenizer in a greedy loop. Raises BadArtifact."""
        from .runtime import open_engine

        return open_engine(exported.directory, PACKAGE, table_path(exported))

    def encoder(self, exported: Exported) -> EncoderRuntime:
        """An encoder in Core ML itself on macOS; elsewhere in kobako's interpreter. Raises BadArtifact."""
        from .encoder import open_encoder

        return open_encoder(exported.directory / PACKAGE)

    def seq2seq(self, exported: Exported) -> Seq2SeqSteps:
        """An encoder-decoder's artifact in the same runtime. Raises BadArtifact."""
        from .seq2seq import open_seq2seq

        return open_seq2seq(exported.directory / PACKAGE)

    def stored_weights(self, exported: Exported) -> Iterator[StoredWeight]:
        """Every matrix, read back out of the package's weight file. Raises BadArtifact."""
        from .readback import stored_weights

        return stored_weights(exported.directory / PACKAGE, table_path(exported))

    def inspect(self, path: Path) -> Mapping[str, Any]:
        """What is inside an ``.mlpackage``. Raises BadArtifact."""
        from .inspection import inspect

        return inspect(path)


TARGET = CoreML()
