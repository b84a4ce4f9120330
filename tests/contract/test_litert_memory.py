"""What the LiteRT target holds in memory: of weights that pass from file to file, a megabyte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from kobako.pipeline import families
from kobako.pipeline.contracts import ExportOptions, Quantized, no_progress
from kobako.pipeline.weights import weight_digest

from tests.conftest import write_tiny_tokenizer
from tests.families import SHAPES, make

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is told by Linux only"),
]
pytest.importorskip("litert_torch")

ROWS, WIDTH = 131_072, 256
TABLE_BYTES = ROWS * WIDTH


def peak_growth(action: Callable[[], object]) -> int:
    """By how many bytes resident memory grew at most, mapped files included, while `action` ran."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    action()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """A llama that is nearly all embedding and head, 34 MB each in int8."""
    llama = next(shape for shape in SHAPES if shape.model_type == "llama")
    options = {**llama.options, "vocab_size": ROWS, "hidden_size": WIDTH, "tie_word_embeddings": False}
    return make(tmp_path_factory.mktemp("wide"), replace(llama, options=options), "int8", write_tiny_tokenizer)


@pytest.mark.parametrize("behind", [False, True])
def test_weights_go_from_file_to_file(wide: Quantized, tmp_path: Path, behind: bool) -> None:
    """Inside the flatbuffer or behind it; and they are digested out of it one at a time."""
    from kobako.targets.litert.export import graph
    from kobako.targets.litert.flatbuffer import INLINE_LIMIT_BYTES, write_model
    from kobako.targets.litert.readback import matrices
    from kobako.targets.litert.rewrite import rewrite
    from kobako.targets.litert.stored import stored_parameters

    options = ExportOptions(context_tokens=64, prefill_tokens=16)
    model = graph(wide, options, families.get("llama"), no_progress)
    path = tmp_path / "model.tflite"

    def write() -> None:
        rewrite(model, stored_parameters(wide.directory))
        write_model(model, path, 0 if behind else INLINE_LIMIT_BYTES)

    def read() -> None:
        for one in matrices(path):
            weight_digest(one.codes, one.scales, one.offsets)

    assert peak_growth(write) < TABLE_BYTES // 2
    assert path.stat().st_size > 2 * TABLE_BYTES
    assert peak_growth(read) < 1.5 * TABLE_BYTES
