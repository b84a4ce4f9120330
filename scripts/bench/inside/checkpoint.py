"""In kobako's environment: the model as the peers read it, and what the original says about the proof text.

usage: checkpoint.py MODEL DOWNLOADS CHECKPOINT REFERENCE TOKENS PROMPT_TOKENS LAYERS   (LAYERS 0 = all)
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def fetched(name: str, downloads: Path, out: Path) -> Any:
    """kobako's Reference of a catalogue model, written into `out`."""
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.load import load

    return load(fetch(parse(name), downloads), out)


def write_checkpoint(model: Any, tokenizer_dir: Path, out: Path) -> None:
    """A Hugging Face directory: float32, so that every peer starts from exactly the reference's numbers."""
    model.save_pretrained(out)
    for file in tokenizer_dir.iterdir():
        shutil.copyfile(file, out / file.name)


def write_reference(model: Any, tokenizer_dir: Path, out: Path, tokens: int, prompt_tokens: int) -> None:
    """Token ids of the proof text, the original's logits for them, and a prompt for the speed runs."""
    import torch
    from kobako.pipeline.prooftext import PROOF_TEXT
    from kobako.pipeline.tokens import ShippedTokenizer

    tokenizer = ShippedTokenizer(tokenizer_dir)
    ids = tokenizer.encode(PROOF_TEXT.read_text(encoding="utf-8"))
    with torch.inference_mode():
        logits = model(torch.tensor([ids[:tokens]])).logits[0].float().numpy()
    np.save(out / "ids.npy", np.asarray(ids[:tokens], dtype=np.int32))
    np.save(out / "logits.npy", logits)
    (out / "prompt.txt").write_text(tokenizer.decode(ids[:prompt_tokens]), encoding="utf-8")


def main() -> None:
    name, downloads, checkpoint, reference_dir, tokens, prompt_tokens, layers = sys.argv[1:]
    from kobako.pipeline.reference.model import reference_model

    out, started = Path(reference_dir), time.monotonic()
    reference = fetched(name, Path(downloads), out)
    model = reference_model(reference)
    if int(layers):
        model.model.layers = model.model.layers[: int(layers)]
        model.config.num_hidden_layers = int(layers)
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = model.config.layer_types[: int(layers)]
    write_checkpoint(model, reference.tokenizer_dir, Path(checkpoint))
    write_reference(model, reference.tokenizer_dir, out, int(tokens), int(prompt_tokens))
    for file in reference.source.files:
        if file.path.endswith(".gguf"):
            (out / "model.gguf").unlink(missing_ok=True)
            (out / "model.gguf").symlink_to(reference.source.directory.absolute() / file.path)
    linear = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed_tokens" not in n)
    vocabulary, hidden = model.get_input_embeddings().weight.shape
    print(
        json.dumps(
            {
                "dtype": "float32",
                "origin": reference.source.origin,
                "linear_parameters": linear,
                "embedding_parameters": vocabulary * hidden,
                "seconds": time.monotonic() - started,
            }
        )
    )


if __name__ == "__main__":
    main()
