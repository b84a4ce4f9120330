"""In kobako's environment: Core ML artifacts in kobako's MIL interpreter, since Core ML itself runs on macOS only.

usage: run_coreml.py logits MODEL.mlpackage IDS.npy OUT.npy    the peer's, made with a fixed query length
       run_coreml.py package PACKAGE IDS.npy OUT.npy           kobako's

Float16 is emulated, as a phone computes. Where the peer's overflows, the operation is named and no logits are
written: a phone would answer nonsense.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def inputs_for(ids: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[Any]]:
    """The whole text in one call: tokens ``[1, N]``, causal mask ``[1, 1, N, N]``."""
    mask = np.triu(np.full((len(ids), len(ids)), -1e4, dtype=np.float32), k=1)  # -65504 would overflow when added
    return {"tokens": ids[None], "mask": mask[None, None]}


def peer(path: str, ids: str, out: str) -> dict[str, Any]:
    """Logits ``[N, V]`` of a package with inputs `tokens` and `mask`, in one prefill."""
    from kobako.pipeline.errors import BadArtifact
    from kobako.targets.coreml.mil.interpreter import Interpreter
    from kobako.targets.coreml.mil.program import read_package

    program = read_package(Path(path))
    try:
        answer = Interpreter(program, "float16").run(program.default_function, inputs_for(np.load(ids)))
    except BadArtifact as error:
        return {"runtime": "MIL interpreter, float16", "overflow": error.what}
    np.save(out, next(iter(answer.values()))[0])
    return {"runtime": "MIL interpreter, float16"}


def own(package: str, ids: str, out: str) -> dict[str, Any]:
    """Logits ``[N, V]`` of a kobako package's Core ML part, token by token."""
    from kobako import targets
    from kobako.pipeline.manifest import exported_of, read_manifest

    exported = exported_of(Path(package), read_manifest(Path(package)), "coreml")
    runtime = targets.get("coreml").runtime(exported)
    np.save(out, np.stack([runtime.feed([token]) for token in np.load(ids).tolist()]))
    runtime.close()
    return {"runtime": "MIL interpreter, float16"}


if __name__ == "__main__":
    print(json.dumps({"logits": peer, "package": own}[sys.argv[1]](*sys.argv[2:])))
