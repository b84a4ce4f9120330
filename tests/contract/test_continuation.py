"""Greedy answers of the reference: the same with a draft that holds, one that breaks off, and none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kobako.pipeline.contracts import Quantized
from kobako.pipeline.prooftext import GREEDY_TOKENS

pytestmark = pytest.mark.heavy

PROMPTS = [[5, 9, 31], [77, 12]]


@pytest.mark.parametrize("stops", [(), "third"], ids=["to the end", "to a stop token"])
@pytest.mark.parametrize("kept", ["float", "int8"])
def test_a_draft_changes_nothing(tiny: Callable[..., Quantized], kept: str, stops: tuple[int, ...] | str) -> None:
    import numpy as np
    import torch
    from kobako.pipeline.continuation import Prompts, continuations
    from kobako.pipeline.reference.eager import quantized_model

    model, passes = quantized_model(tiny("int8")), list[int]()
    model.register_forward_pre_hook(lambda _module, arguments: passes.append(arguments[0].shape[1]))

    def said(drafts: list[list[int]]) -> list[tuple[list[int], list[float]]]:
        passes.clear()
        with torch.inference_mode():
            found = continuations(model, Prompts(PROMPTS, ends, drafts), kept)
        first.append([one.first_logits for one in found])
        return [(one.ids, one.margins) for one in found]

    first: list[list[object]] = []
    ends: tuple[int, ...] = ()
    if stops:
        ends = (said([])[0][0][2],)
    wanted = said([])
    assert len(wanted[0][0]) == GREEDY_TOKENS or (stops and wanted[0][0][-1] in ends)
    assert not stops or len(wanted[0][0]) <= 3
    alone = len(passes)
    broken = [[ids[0], (ids[1] + 1) % 384, *ids[2:], 7] for ids, _ in wanted]
    for drafts, fewest in (([ids for ids, _ in wanted], len(PROMPTS)), (broken, None), ([[1] * 20, [2]], None)):
        for (ids, margins), (same, close) in zip(wanted, said(drafts), strict=True):
            assert same == ids
            np.testing.assert_allclose(close, margins, atol=1e-3)
        assert len(passes) == fewest if fewest else len(passes) <= alone + len(PROMPTS)
        np.testing.assert_allclose(first[-1], first[0], atol=1e-3)
