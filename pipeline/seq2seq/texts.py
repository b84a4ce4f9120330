"""The sources every proof of an encoder-decoder reads, as the prompts of its tasks."""

from __future__ import annotations

from ..errors import UsageError
from ..prooftext import PROMPTS, PROOF_TEXT
from ..tasks import build_prompt, fields_for
from ..tokens import ShippedTokenizer
from .tasks import tasks_of

ANSWER_TOKENS = 32
SHORTEST_CONTEXT = 64
PARAGRAPHS = 6


def proof_prompts(model_type: str, context_tokens: int, tokenizer: ShippedTokenizer) -> list[str]:
    """Short texts, each in the prompt of one of the tasks in turn, in one of its languages; those that fit."""
    tasks = list(tasks_of(model_type, tokenizer).values())
    made = []
    for number, text in enumerate(PROMPTS):
        task = tasks[number % len(tasks)]
        to = task.languages[number % len(task.languages)] if task.fills else None
        made.append(build_prompt(task, tokenizer, fields_for(task, text, to)))
    return [prompt for prompt in made if len(tokenizer.encode_prompt(prompt)) <= context_tokens]


def proof_sources(prompts: list[list[int]], tokenizer: ShippedTokenizer, context_tokens: int) -> list[list[int]]:
    """Ids of the prompts, of paragraphs, and of a text that fills the context. Raises UsageError for one too short."""
    if context_tokens < SHORTEST_CONTEXT:
        raise UsageError(
            f"a context of {context_tokens} tokens is too short to prove anything.",
            f"Use --context {SHORTEST_CONTEXT} or more.",
        )
    whole = PROOF_TEXT.read_text(encoding="utf-8")
    paragraphs = [part.strip() for part in whole.split("\n\n") if part.strip()][:PARAGRAPHS]
    texts = [tokenizer.encode_whole(text, context_tokens) for text in (*paragraphs, whole)]
    return [ids[:context_tokens] for ids in (*prompts, *texts)]
