"""The process that answers: one job on standard input, one JSON line an answer on standard output.

The job names a package's target, which answers in the engine that ``kobako run`` uses, or the original model, which
answers greedily in PyTorch through the same generation loop.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobako.pipeline.codec import from_json
from kobako.pipeline.contracts import Exported, FloatArray
from kobako.pipeline.errors import IntegrityError, KobakoError
from kobako.pipeline.generate import TokenEngine, Until
from kobako.pipeline.protocols import Engine
from kobako.pipeline.worker import follow_parent_into_death

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Eager:
    """The original model as a `protocols.Runtime`: float32, with transformers' own cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._cache = model, None

    def reset(self) -> None:
        """Forget everything fed so far."""
        self._cache = None

    def feed(self, ids: Sequence[int]) -> FloatArray:
        """Append tokens; logits ``[V]`` that follow the last of them."""
        import torch

        with torch.inference_mode():
            said = self._model(torch.tensor([list(ids)]), past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = said.past_key_values
        logits: FloatArray = said.logits[0, -1].float().numpy()
        return logits

    def close(self) -> None:
        """Nothing to give back."""


def original(model: str, files: Mapping[str, str], scratch: Path) -> Engine:
    """The model a package was made from, as an engine. Raises IntegrityError when it is not made from these files."""
    from kobako.pipeline.cache import default_root
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load
    from kobako.pipeline.reference.model import reference_model
    from kobako.pipeline.tokens import stop_ids

    source = fetch(parse(model), default_root() / "downloads")
    found = {file.path: file.sha256 for file in source.files}
    other = [path for path, sha256 in files.items() if found.get(path) != sha256]
    if other:
        raise IntegrityError(
            f"the package was made from another {other[0]} than {source.origin} {source.revision} holds.",
            "Build the package again, then compare.",
        )
    reference = load(source, scratch)
    return TokenEngine(
        Eager(reference_model(reference)), reference.tokenizer_dir, stop_ids(reference.directory), "PyTorch float32"
    )


def engine_of(speaker: Mapping[str, Any], scratch: Path) -> Engine:
    """Whoever shall answer, loaded."""
    from kobako import targets

    if "model" in speaker:
        return original(speaker["model"], speaker["files"], scratch)
    target = targets.get(speaker["target"])
    targets.require(target)
    return target.engine(from_json(speaker["exported"], Exported))


def answer(engine: Engine, question: Mapping[str, Any]) -> dict[str, Any]:
    """One answer, ended by the task's stop strings as ``kobako run`` does it."""
    until = Until(question["stop"], lambda _: None)
    said = engine.generate(question["prompt"], question["max_new_tokens"], until)
    return {"text": until.finish(), "generated_tokens": said.generated_tokens, "engine": engine.name}


def main() -> None:
    """Answer everything, then end without vendors' exit handlers: they have crashed after the work was done."""
    threading.Thread(target=follow_parent_into_death, args=(os.getppid(),), daemon=True).start()
    told = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what vendors print must not mix with answers
    job = json.loads(sys.stdin.read())
    try:
        with tempfile.TemporaryDirectory(prefix="kobako-tasks-") as scratch:
            engine = engine_of(job["speaker"], Path(scratch))
            for question in job["questions"]:
                told.write(json.dumps(answer(engine, question)) + "\n")
            engine.close()
    except KobakoError as error:
        told.write(
            json.dumps({"error": {"kind": type(error).__name__, "what": error.what, "next_step": error.next_step}})
            + "\n"
        )
    except Exception as error:
        traceback.print_exc()
        what = f"unexpected {type(error).__name__}: {error}"
        told.write(json.dumps({"error": {"kind": "TargetCrashed", "what": what, "next_step": ""}}) + "\n")
    told.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
