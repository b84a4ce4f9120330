"""What models whose weights lie outside take: a process of its own, since memory is only ever measured at its peak."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from kobako.pipeline.codec import to_json
from kobako.pipeline.contracts import RECIPES, Quantized
from kobako.pipeline.tensorfile import write_tensors
from kobako.pipeline.weights import WEIGHTS_FILE, round_to_nearest, write_weights

from tests.conftest import write_tiny_checkpoint
from tests.contract.test_per_layer import load_reference

pytestmark = pytest.mark.heavy

WIDE = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16, "num_key_value_heads": 4}
CHILD = """
import json, sys
import numpy as np, torch
from kobako.pipeline.codec import from_json
from kobako.pipeline.contracts import Quantized, Reference
from kobako.pipeline.reference.eager import empty_model_in, quantized_model
from kobako.pipeline.reference.model import reference_model
from kobako.pipeline.reference.residence import EVERYTHING, Budget

def peak_rss_bytes():  # not ru_maxrss, which a child inherits from the process that starts it
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

kind, value, budget = json.loads(sys.argv[1])
frozen = from_json(value, Reference if kind == "reference" else Quantized)
warm = torch.nn.Linear(64, 64)(torch.zeros(9, 64))
ids = torch.arange(3, 20)[None]
empty_model_in(frozen.directory)
before = peak_rss_bytes()
make = reference_model if kind == "reference" else quantized_model
with torch.no_grad():
    make(frozen, budget=Budget(0.0, 0.0) if budget == "nothing" else EVERYTHING)(ids)
print(peak_rss_bytes() - before)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], int]:
    """A wide original and its quantized form, as JSON values; and the bytes that the model takes in float32."""
    from kobako.pipeline.reference.eager import empty_model_in

    home = tmp_path_factory.mktemp("wide")
    model = write_tiny_checkpoint(home / "model")
    config = json.loads((model / "config.json").read_text())
    config = {**config, **WIDE, "head_dim": 128}
    (model / "config.json").write_text(json.dumps(config))
    shapes = {name: tuple(value.shape) for name, value in empty_model_in(model).named_parameters()}
    write_tensors(model / "model.safetensors", ((name, np.full(s, 0.01, np.float16)) for name, s in shapes.items()), {})
    reference = load_reference(model, home)
    codes = (
        (name, round_to_nearest(np.full(s, 0.01, np.float32), 8, None) if len(s) == 2 else np.ones(s, np.float32))
        for name, s in shapes.items()
    )
    write_weights(reference.directory / WEIGHTS_FILE, codes)
    quantized = Quantized(name="wide", directory=reference.directory, recipe=RECIPES["int8"], model_type="llama")
    values = {"reference": to_json(reference), "quantized": to_json(quantized)}
    return values, sum(4 * int(np.prod(shape)) for shape in shapes.values())


def grown_bytes(kind: str, value: object, budget: str) -> int:
    """How much more memory a process takes for making a model and reading a few tokens."""
    said = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([kind, value, budget])], capture_output=True, text=True, check=True
    )
    return int(said.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["reference", "quantized"])
def test_no_copy_in_float32_is_held(models: tuple[dict[str, object], int], kind: str) -> None:
    values, whole = models
    assert grown_bytes(kind, values[kind], "nothing") < 0.45 * whole


def test_a_copy_in_float32_would_be_seen(models: tuple[dict[str, object], int]) -> None:
    """A part of it hides behind what importing has taken and given back."""
    values, whole = models
    assert grown_bytes("reference", values["reference"], "all") > 0.6 * whole
