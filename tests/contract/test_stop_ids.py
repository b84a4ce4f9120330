"""Every stop id of generation_config.json reaches every artifact: an engine that knows one of two talks on and on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from kobako.pipeline import families
from kobako.pipeline.contracts import RECIPES, ExportOptions, Quantized
from kobako.pipeline.tokens import stop_ids
from kobako.targets.executorch import export as executorch
from kobako.targets.litert import container, export

from tests.tiny_tokenizers import HOME

STOPS = (2, 4)
TEXTS = ["</s>", "<|im_end|>"]


def test_all_stop_ids_are_carried(tmp_path: Path) -> None:
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    shutil.copytree(HOME / "byte-level", tmp_path / "tokenizer")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": list(STOPS)}))
    quantized = Quantized(name="toy", directory=tmp_path, recipe=RECIPES["int8"], model_type="llama")
    described = export.describe(quantized, ExportOptions(), families.get("llama"))
    message = llm_metadata_pb2.LlmMetadata.FromString(container.metadata_bytes(described))
    assert [token for stop in message.stop_tokens for token in stop.token_ids.ids] == list(STOPS)
    assert [stop.token_str for stop in message.stop_tokens if stop.token_str] == TEXTS
    assert executorch.stop_ids(quantized, {"eos_token_id": 0}) == list(STOPS)
    assert stop_ids(tmp_path) == STOPS  # what Core ML's metadata and the manifest are made of
