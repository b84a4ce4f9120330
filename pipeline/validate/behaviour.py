"""What the phone will do: ids of the shipped tokenizer, the rendered template, stop tokens, greedy text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..contracts import Check
from ..errors import KobakoError
from ..prooftext import GREEDY_TOKENS, prompts_for
from ..protocols import Engine
from ..standard import Standard
from ..tokens import ShippedTokenizer
from .gates import GREEDY_PROMPTS_SHARE, near_tie


@dataclass(frozen=True)
class Answer:
    """One prompt's greedy continuation: expected and actual text, and why they part where they do.

    `tie`: they part where the reference's best two logits are closer than its own noise.
    `read`, `wanted`: tokens that the engine read of the prompt, and that the tokenizer makes of it.
    """

    prompt: str
    expected: str
    actual: str
    same: bool
    tie: bool
    note: str
    read: int = 0
    wanted: int = 0


def check_tokenizer(
    directory: Path, standard: Standard, render: Callable[[ShippedTokenizer], list[str]] = prompts_for
) -> list[Check]:
    """The files beside the artifact give the same prompts and the same ids as the reference's tokenizer gave.

    `render`: what makes the prompts with a tokenizer.
    """
    wanted_prompts, wanted_ids = standard.facts["prompts"], standard.facts["prompt_ids"]
    try:
        tokenizer = ShippedTokenizer(directory)
        prompts = render(tokenizer)
        ids = [tokenizer.encode_prompt(prompt) for prompt in wanted_prompts]
    except (OSError, ValueError, KeyError, KobakoError) as error:
        return [_check("tokenizer", "unreadable", "files beside the artifact", passed=False, detail=str(error))]
    rendered = "identical" if prompts == wanted_prompts else "differs"
    same_ids = sum(one == other for one, other in zip(ids, wanted_ids, strict=True))
    return [
        _check("chat template", rendered, "renders every prompt identically", passed=prompts == wanted_prompts),
        _check("token ids", f"{same_ids} of {len(ids)} prompts", "identical", passed=same_ids == len(ids)),
    ]


def check_stop(engine: Engine, standard: Standard, directory: Path) -> Check:
    """The engine stops by itself where the reference does: a continuation that ended in a stop token ends there too.

    An answer that has parted from the reference's at a near tie by then may end elsewhere, and is not held against it.
    """
    tokenizer, stops = ShippedTokenizer(directory), set(standard.facts["stop_ids"])
    parted = 0
    for number, prompt in enumerate(standard.facts["prompts"]):
        ids = standard.quality["greedy"][number]
        if not ids or ids[-1] not in stops:
            continue
        said = engine.generate(prompt, GREEDY_TOKENS * 2, _silent)
        value, demand = f"after {said.generated_tokens} tokens", f"after {len(ids)} tokens"
        if said.generated_tokens <= len(ids) + 1:
            return _check("stops", value, demand, passed=True, detail=said.text)
        answer = _answer(prompt, said.text, tokenizer, ids[:-1], standard, number)
        at_stop = standard.quality["margins"][number][len(ids) - 1] < near_tie(standard.quality["noise"])
        if not (answer.tie or (answer.same and at_stop)):
            return _check("stops", value, demand, passed=False, detail=said.text)
        parted += 1
    why = f"{parted} answers part at a near tie before" if parted else "no prompt's answer ends within the limit"
    return _check("stops", "not exercised", why, passed=True)


def compare_greedy(engine: Engine, standard: Standard, directory: Path, tick: Callable[[float], None]) -> list[Answer]:
    """Greedy text of the engine against the quantized reference's first tokens, prompt by prompt."""
    tokenizer = ShippedTokenizer(directory)
    prompts = standard.facts["prompts"]
    stops = set(standard.facts["stop_ids"])
    answers = []
    for number, prompt in enumerate(prompts):
        ids = [token for token in standard.quality["greedy"][number] if token not in stops]
        said = engine.generate(prompt, GREEDY_TOKENS, _silent)
        answer = _answer(prompt, said.text, tokenizer, ids, standard, number)
        wanted = len(standard.facts["prompt_ids"][number])
        answers.append(replace(answer, read=said.prompt_tokens, wanted=wanted))
        tick((number + 1) / len(prompts))
    return answers


def check_prompts(answers: list[Answer]) -> Check:
    """The engine reads each prompt as the tokenizer gives it, the token that begins every text (bos) included.

    Without it a model may part from the reference at once, where many tokens are nearly as likely as the best.
    """
    wrong = [answer for answer in answers if answer.read != answer.wanted]
    value = f"{len(answers) - len(wrong)} of {len(answers)} prompts"
    detail = f"{wrong[0].read} tokens read instead of {wrong[0].wanted}: is bos added once?" if wrong else ""
    return _check("tokens read", value, "as many as the tokenizer gives", passed=not wrong, detail=detail)


def check_greedy(answers: list[Answer]) -> Check:
    """Enough prompts are continued as the reference continues them, up to a near tie."""
    same, ties = sum(answer.same for answer in answers), sum(answer.tie for answer in answers)
    passed = same + ties >= GREEDY_PROMPTS_SHARE * len(answers)
    detail = "; ".join(answer.note for answer in answers if answer.note)
    value = f"{same} of {len(answers)} prompts equal" + (f", {ties} part at a near tie" if ties else "")
    demand = f"≥ {GREEDY_PROMPTS_SHARE:.0%} equal, or apart only from a near tie on"
    return _check("greedy text", value, demand, passed=passed, detail=detail)


def _answer(
    prompt: str, actual: str, tokenizer: ShippedTokenizer, ids: list[int], standard: Standard, number: int
) -> Answer:
    """Compare an engine's text with the reference's ids, and say why they part."""
    expected = tokenizer.decode(ids)
    if actual.strip().startswith(expected.strip().rstrip("\ufffd")):
        return Answer(prompt, expected, actual, same=True, tie=False, note="")
    step = 0
    while step < len(ids) and actual.strip().startswith(tokenizer.decode(ids[: step + 1]).strip().rstrip("\ufffd")):
        step += 1
    margins = standard.quality["margins"][number]
    margin, limit = margins[min(step, len(margins) - 1)], near_tie(standard.quality["noise"])
    kind = "a near tie" if margin < limit else "no tie"
    note = f"token {step + 1} of {expected!r}: best two logits {margin:.3f} apart, {kind} (noise {limit:.3f})"
    return Answer(prompt, expected, actual, same=False, tie=margin < limit, note=note)


def _silent(piece: str) -> None:
    """An on_text for callers that only want the end."""


def _check(name: str, value: str, demand: str, *, passed: bool, detail: str = "") -> Check:
    return Check(part="behaviour", name=name, value=value, demand=demand, passed=passed, detail=detail)
