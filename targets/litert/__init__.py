"""The LiteRT target: ``model.litertlm`` for the LiteRT-LM engine and ``model.tflite`` for LiteRT itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kobako.pipeline.contracts import Activations, Exported, ExportOptions, KvCache, Progress, Quantized, Recipe
from kobako.pipeline.protocols import EncoderRuntime, Engine, KvCost, Runtime, Seq2SeqSteps, StoredWeight

MODEL_FILE = "model.tflite"
CONTAINER_FILE = "model.litertlm"


class LiteRT:
    """Fulfils `protocols.Target`; everything heavy is imported by the methods."""

    name = "litert"
    title = "LiteRT"
    vendor_modules: tuple[str, ...] = ("litert_torch", "ai_edge_litert", "litert_lm", "litert_lm_builder")
    recipes: tuple[str, ...] = ("float16", "int8", "int4", "int4-small", "int4-nearest")
    kv_caches: Mapping[KvCache, KvCost] = {"float": KvCost(value_bytes=4)}
    suffixes: tuple[str, ...] = (".tflite", ".litertlm")
    relative_cost = 1.0
    interpreted = False

    def activations(self, recipe: Recipe) -> Activations:
        """What an artifact of this recipe computes activations in."""
        return "float32" if recipe.weight_bits == 16 else "int8-dynamic"

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
        """``model.tflite`` in LiteRT with its XNNPACK delegate. Raises BadArtifact."""
        from .runtime import LiteRTRuntime

        return LiteRTRuntime(exported.directory / MODEL_FILE)

    def engine(self, exported: Exported) -> Engine:
        """``model.litertlm`` in the LiteRT-LM engine. Raises BadArtifact."""
        from .engine import LiteRTLMEngine

        return LiteRTLMEngine(exported.directory / CONTAINER_FILE)

    def encoder(self, exported: Exported) -> EncoderRuntime:
        """An encoder's ``model.tflite`` in LiteRT with its XNNPACK delegate. Raises BadArtifact."""
        from .encoder import LiteRTEncoder

        return LiteRTEncoder(exported.directory / MODEL_FILE)

    def seq2seq(self, exported: Exported) -> Seq2SeqSteps:
        """An encoder-decoder's artifact in the same runtime. Raises BadArtifact."""
        from .seq2seq import LiteRTSeq2Seq

        return LiteRTSeq2Seq(exported.directory / MODEL_FILE)

    def stored_weights(self, exported: Exported) -> Iterator[StoredWeight]:
        """Every weight matrix, read back out of both files' bytes. Raises BadArtifact when the two differ.

        Only a decoder has a container.
        """
        from .readback import matrices, stored_weights

        model = exported.directory / MODEL_FILE
        if exported.kind != "decoder":
            return matrices(model)
        return stored_weights(model, exported.directory / CONTAINER_FILE)

    def inspect(self, path: Path) -> Mapping[str, Any]:
        """What is inside a .tflite or .litertlm. Raises BadArtifact."""
        from .inspection import inspect

        return inspect(path)


TARGET = LiteRT()
