"""Questions, who is asked, and the answers that are kept: a run that was stopped goes on from there.

.cache/tasks/answers/SPEAKER.json    {digest of the question: answer}
.cache/tasks/logs/SPEAKER.log        what the vendors printed
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from kobako.pipeline.codec import read_json, write_json
from kobako.pipeline.errors import KobakoError, TargetCrashed, by_name
from kobako.pipeline.process import kill_group, tail
from kobako.pipeline.system import Machine

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[3] / ".cache" / "tasks"
DIGEST_LENGTH = 24

Told = Callable[[int, int], None]
"""Told after each answer: how many are there, how many there will be."""


@dataclass(frozen=True)
class Question:
    """What an engine is given: a rendered prompt, and where the answer ends."""

    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...]

    @property
    def key(self) -> str:
        return digest(asdict(self))


@dataclass(frozen=True)
class Answer:
    """What was said, by which engine, and how many tokens it took (its own count, stop token or not)."""

    text: str
    generated_tokens: int
    engine: str


@dataclass(frozen=True)
class Speaker:
    """Someone who answers: the original model, or one artifact in its engine.

    Attributes:
        name: fit for a file name; changes with the artifact's bytes.
        job: what ``taskscores.child`` needs to bring it to life.
    """

    name: str
    job: Mapping[str, Any]


def digest(value: object) -> str:
    """A short content digest of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


class Kept:
    """The answers of one speaker on disk; each put leaves a whole file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = read_json(path) if path.is_file() else {}

    def get(self, question: Question) -> Answer | None:
        found = self._known.get(question.key)
        return None if found is None else Answer(**found)

    def put(self, question: Question, answer: Answer) -> None:
        self._known[question.key] = asdict(answer)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        write_json(partial, self._known)
        partial.replace(self._path)


def ask(
    speaker: Speaker, questions: Sequence[Question], told: Told, *, fresh: bool = False, home: Path = HOME
) -> list[Answer]:
    """The speaker's answers, in order; those kept from an earlier run are not asked for again unless `fresh`.

    Raises the KobakoError that the speaker's process raised; TargetCrashed when it died.
    """
    kept = Kept(home / "answers" / f"{speaker.name}.json")
    asked = list(dict.fromkeys(one for one in questions if fresh or kept.get(one) is None))
    before = len(set(questions)) - len(asked)
    told(before, before + len(asked))
    if asked:
        log = home / "logs" / f"{speaker.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        for done, (question, answer) in enumerate(zip(asked, _spoken(speaker, asked, log), strict=True), start=1):
            kept.put(question, answer)
            told(before + done, before + len(asked))
    answers = [kept.get(question) for question in questions]
    return [answer for answer in answers if answer is not None]


def _spoken(speaker: Speaker, questions: Sequence[Question], log: Path) -> Iterator[Answer]:
    """Answers as they come from a process of the speaker's own, started once for all questions."""
    defaults = {"OMP_NUM_THREADS": str(Machine.here().cores), "TOKENIZERS_PARALLELISM": "false"}
    found_at = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    environment = defaults | os.environ | {"PYTHONPATH": found_at}
    with log.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskscores.child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed, env=environment, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin:
            job = {"speaker": dict(speaker.job), "questions": [asdict(question) for question in questions]}
            process.stdin.write(json.dumps(job).encode())
        yield from _read(process.stdout, len(questions), log)
    finally:
        kill_group(process)
        process.wait()


def _read(stream: IO[bytes], count: int, log: Path) -> Iterator[Answer]:
    for _ in range(count):
        line = stream.readline()
        if not line:
            raise TargetCrashed("the process that answers died.", f"Last lines of {log}:\n{tail(log)}")
        event = json.loads(line)
        if "error" in event:
            raise _rebuilt(event["error"], log)
        yield Answer(**event)


def _rebuilt(error: Mapping[str, str], log: Path) -> KobakoError:
    return by_name(error["kind"])(error["what"], error["next_step"] or f"Details: {log}")
