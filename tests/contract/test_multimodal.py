"""Checkpoints that also read images and speech: their text part says what transformers' whole model says of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kobako.pipeline.contracts import no_progress

from tests.conftest import write_tiny_tokenizer
from tests.families import SIZES, longrope

pytestmark = pytest.mark.heavy

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
PHI4 = {
    **SIZES, "rope_parameters": longrope(), "original_max_position_embeddings": 256, "max_position_embeddings": 1024,
    "vision_config": {**SMALL, "num_hidden_layers": 2, "image_size": 28, "crop_size": 28, "image_token_id": 380},
    "audio_config": {**SMALL, "num_blocks": 1, "ext_pw_out_channel": 32, "nemo_conv_channels": 32,
                     "depthwise_separable_out_channel": 32, "audio_token_id": 381},
}  # fmt: skip


def as_first_published(config: dict[str, Any], tensors: dict[str, Any]) -> None:
    """As Microsoft's own repository has it: another name, code of its own, adapters beside what they adapt."""
    rope = config.pop("rope_parameters")
    config.pop("vision_config")
    config.pop("audio_config")
    config.update(
        model_type="phi4mm", architectures=["Phi4MMForCausalLM"], auto_map={"AutoModelForCausalLM": "m.Phi4MM"},
        embd_layer={"image_embd_layer": {}}, vision_lora={"r": 4}, speech_lora={"r": 4}, rope_theta=10000.0,
        partial_rotary_factor=rope["partial_rotary_factor"],
        rope_scaling={"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]},
    )  # fmt: skip
    for name in [one for one in tensors if one.endswith("_proj.weight") and one.startswith("model.layers.")]:
        home, value = name.removesuffix("weight"), tensors.pop(name)
        tensors[f"{home}base_layer.weight"] = value
        for sense in ("vision", "speech"):
            tensors[f"{home}lora_A.{sense}.weight"] = np.ones((4, value.shape[1]), np.float32)
            tensors[f"{home}lora_B.{sense}.weight"] = np.ones((value.shape[0], 4), np.float32)


@pytest.mark.parametrize("edit", [None, as_first_published], ids=["transformers", "first-published"])
def test_phi4_multimodal_reads_text_as_transformers_does(edit: Any, tmp_path: Path) -> None:
    """Adapters of images and speech are neither merged nor missed."""
    import torch
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.leftout import left_out
    from kobako.pipeline.reference.load import load
    from kobako.pipeline.reference.model import reference_model
    from safetensors.numpy import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("phi4_multimodal", **PHI4)).float().eval()
    home, ids = tmp_path / "model", torch.arange(3, 90)[None]
    write_tiny_tokenizer(home)
    model.save_pretrained(home)
    if edit is not None:
        config, tensors = json.loads((home / "config.json").read_text()), load_file(home / "model.safetensors")
        edit(config, tensors)
        (home / "config.json").write_text(json.dumps(config))
        save_file(tensors, home / "model.safetensors")
    source = fetch(parse(str(home)), tmp_path / "downloads", no_progress)
    (tmp_path / "reference").mkdir()
    reference = load(source, tmp_path / "reference")
    assert (reference.model_type, left_out(source)) == ("phi3", ("images", "audio"))
    with torch.no_grad():
        assert torch.allclose(reference_model(reference)(ids).logits, model(ids).logits, atol=1e-5)
