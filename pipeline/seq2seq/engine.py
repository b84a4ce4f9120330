"""Text in, text out: the artifact of any model that writes text, in what an app would use."""

from __future__ import annotations

from ..contracts import Exported
from ..generate import TokenEngine
from ..protocols import Engine, Target
from .facts import STOP, ids_in
from .runtime import Seq2SeqRuntime


def engine_of(target: Target, exported: Exported) -> Engine:
    """A decoder's own engine; no vendor has one for encoder-decoders, which are run greedily here.

    Raises BadArtifact.
    """
    if exported.kind != "seq2seq":
        return target.engine(exported)
    runtime = Seq2SeqRuntime(target.seq2seq(exported), exported)
    return TokenEngine(runtime, exported.directory, ids_in(exported.details, STOP), runtime.name)
