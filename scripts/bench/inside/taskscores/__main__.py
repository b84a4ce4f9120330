"""The command line of ``scripts/bench/tasks``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kobako import targets
from kobako.pipeline.codec import from_json, to_json
from kobako.pipeline.contracts import Task
from kobako.pipeline.errors import KobakoError, UsageError
from kobako.pipeline.manifest import check_files, exported_of, read_manifest
from kobako.pipeline.tasks import build_prompt, fields_for
from kobako.pipeline.tokens import ShippedTokenizer

from .answers import Answer, Question, Speaker, ask, digest
from .items import TASKS, Item, items_for
from .rows import Asked, Row, markdown, rows_of
from .scores import signatures

ABOUT = """\
Scores what packages are for: summaries (ROUGE-L) and translations from English (chrF), each target in its own engine,
beside the original model in PyTorch. Both choose greedily and get the same prompts, the package's own.

Answers are kept in .cache/tasks; a second run asks only for what is missing. Core ML runs in kobako's interpreter here,
slowly: only when named by --target."""
ORIGINAL = "float"


@dataclass(frozen=True)
class Package:
    """A package on disk, read."""

    directory: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    def tasks(self) -> list[Task]:
        """Those of its tasks that can be scored. Raises UsageError when there is none."""
        tasks = [from_json(task, Task) for task in self.manifest["tasks"]]
        scored = [task for task in tasks if task.name in TASKS]
        if not scored:
            has = ", ".join(task.name for task in tasks)
            raise UsageError(f"{self.directory} has the tasks {has}; scored are {', '.join(TASKS)}.")
        return scored

    def original(self) -> Speaker:
        """The model it was made from."""
        model = self.manifest["model"]
        files = {file["path"]: file["sha256"] for file in model["files"]}
        return Speaker(f"{model['name']}-{ORIGINAL}-{digest(files)}", {"model": model["name"], "files": files})

    def artifact(self, target: str) -> Speaker:
        """One of its targets in its engine. Raises NotFound, IntegrityError when a file was changed."""
        exported = exported_of(self.directory, self.manifest, target)
        check_files(self.directory, self.manifest, [target])
        files = [file["sha256"] for file in self.manifest["targets"][target]["files"]]
        job = {"target": target, "exported": to_json(exported)}
        return Speaker(f"{self.name}-{target}-{digest(files)}", job)

    def targets(self, asked: list[str]) -> list[str]:
        """Those asked for, or all that have an engine made for speed on this machine."""
        return asked or [name for name in self.manifest["targets"] if name != "coreml"]


def arguments() -> argparse.Namespace:
    """The command line, parsed."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench/tasks", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: scripts/bench/tasks --package dist/smollm2-135m-instruct-int8 --limit 4\n"
               "Exit status: 0, or that of kobako's error.",
    )  # fmt: skip
    parser.add_argument("--package", action="append", required=True, type=Path, metavar="DIR", help="repeatable")
    parser.add_argument("--target", "-t", action="append", default=[], choices=targets.names(),
                        help="repeatable [default: all the package has, but coreml]")  # fmt: skip
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N texts of each task")
    parser.add_argument("--fresh", action="store_true", help="ask again for answers that are kept")
    parser.add_argument("--json", action="store_true", help="print rows, answers and settings as JSON")
    return parser.parse_args()


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def questions_for(package: Package, task: Task, items: list[Item]) -> list[Question]:
    """What the package's task makes of the items. Raises UsageError for a language that the task does not know."""
    tokenizer = ShippedTokenizer(package.directory / "tokenizer")
    prompts = [build_prompt(task, tokenizer, fields_for(task, item.text, item.to)) for item in items]
    return [Question(prompt, task.max_new_tokens, task.stop) for prompt in prompts]


def collected(package: Package, asked: argparse.Namespace, known: dict[str, bool]) -> Iterator[Asked]:
    """The package's answers, task by task: first the original's (shown once for all its packages), then each target's.

    `known` remembers which originals were asked in this run.
    """
    for task in package.tasks():
        items = items_for(task.name, asked.limit)
        questions = questions_for(package, task, items)

        def answers(speaker: Speaker, *, fresh: bool, wanted: list[Question] = questions) -> list[Answer]:
            return ask(speaker, wanted, lambda done, of: say(f"{speaker.name}: {done} of {of}"), fresh=fresh)

        original = package.original()
        shown = f"{original.name}-{task.name}"
        originals = answers(original, fresh=asked.fresh and shown not in known)
        if shown not in known:
            known[shown] = True
            name = str(package.manifest["model"]["name"])
            yield Asked(name, ORIGINAL, items, originals, originals, task.max_new_tokens)
        for target in package.targets(asked.target):
            said = answers(package.artifact(target), fresh=asked.fresh)
            yield Asked(package.name, target, items, said, originals, task.max_new_tokens)


def as_json(collection: list[Asked], rows: list[Row]) -> dict[str, Any]:
    """Everything, answers included: figures are for tables, answers for reading."""
    said = [
        {"package": one.package, "target": one.target, **asdict(item), "answer": answer.text, "original": first.text}
        for one in collection
        for item, answer, first in zip(one.items, one.answers, one.originals, strict=True)
    ]
    return {"settings": signatures(), "rows": [asdict(row) for row in rows], "answers": said}


def say(text: str) -> None:
    """A line of progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Ask, score, show."""
    asked = arguments()
    try:
        packages = [Package(path, read_manifest(path)) for path in asked.package]
        known: dict[str, bool] = {}
        collection = [one for package in packages for one in collected(package, asked, known)]
    except KobakoError as error:
        say(f"error: {error}")
        return error.exit_code
    rows = [row for one in collection for row in rows_of(one)]
    if asked.json:
        print(json.dumps(as_json(collection, rows), indent=2, ensure_ascii=False))
        return 0
    print(markdown(rows))
    print("\nEngines: " + "; ".join(dict.fromkeys(row.engine for row in rows)) + ".")
    print("\n".join(f"{name}: {text}." for name, text in signatures().items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
