"""Packages and addresses → a set directory: what lies here is checked and goes in, what is published is only named."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..codec import write_json
from ..contents import files_in
from ..errors import BadArtifact, OutputError, UsageError
from ..manifest import MANIFEST_FILE, SET_FILE, read_manifest, sha256_of
from ..place import scratch_beside, sweep, take_place, unwritable_is_an_error
from ..registry.addresses import parse, without_secrets
from ..registry.listing import Source
from ..registry.transfer import Meter, Workspace, link_or_copy, obtain_all
from ..verify import check_contents
from .check import check_set
from .table import Member, PackageSet, Route, ambiguous, check_served, document, is_set, read_set

LANGUAGE = r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*"
ROUTE = re.compile(
    rf"(?P<task>[a-z][a-z0-9-]*)(?::(?:(?P<source>{LANGUAGE})/)?(?P<to>{LANGUAGE}))?(?:@(?P<domain>[a-z][a-z0-9-]*))?"
)
NEXT_STEP = "Write --task TASK=PACKAGE, TASK:fr=PACKAGE (into a language), TASK:en/fr=PACKAGE or TASK@WORD=PACKAGE."


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One ``--task`` of the command line: a row of the table, and the package it leads to, still as it was written."""

    task: str
    source: str | None
    to: str | None
    domain: str | None
    where: str


def parse_assignment(text: str) -> Assignment:
    """Read ``translate:en/fr@travel=dist/my-package``. Raises UsageError."""
    left, _, where = text.partition("=")
    match = ROUTE.fullmatch(left)
    if not match or not where:
        raise UsageError(f"{text!r} does not say which package does a task.", NEXT_STEP)
    return Assignment(**match.groupdict(), where=where)


@dataclass(frozen=True)
class _Found:
    member: Member
    manifest: Mapping[str, Any]


def make_set(out: Path, name: str, assignments: Sequence[Assignment], opened: Callable[[str], Source]) -> PackageSet:
    """Write the set directory `out`; a set of that name that stands there is replaced.

    Tasks that are not assigned go to the only member that does them.

    Args:
        opened: the source at the address of a published package.

    Raises UsageError, BadArtifact (no package; a set; a task that a member does not do, or that two do), IntegrityError
    for a damaged one, OutputError, and what a source raises.
    """
    _check_place(out, name)
    with unwritable_is_an_error(out):
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        sweep(out)
        work = scratch_beside(out.absolute())
        work.mkdir()
        try:
            made = _assemble(work, name, assignments, opened)
            take_place(work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return made


def _check_place(out: Path, name: str) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_set(out):
        raise OutputError(f"{out} exists and is not a package set.", "Choose another directory, or remove it.")
    if (other := read_set(out).name) != name:
        raise OutputError(f"{out} holds another set, {other}.", "Choose another directory, or remove it.")


def _assemble(work: Path, name: str, assignments: Sequence[Assignment], opened: Callable[[str], Source]) -> PackageSet:
    found: dict[str, _Found] = {}
    for where in dict.fromkeys(each.where for each in assignments):
        found[where] = _published(where, opened) if "://" in where else _local(Path(where), work)
    manifests = {one.member.name: one.manifest for one in found.values()}
    if len(manifests) != len(found):
        raise UsageError("two packages have one name.", "A set holds each package once: build one with another --out.")
    routes = [
        Route(task=each.task, member=found[each.where].member.name, source=each.source, to=each.to, domain=each.domain)
        for each in assignments
    ]
    made = PackageSet(
        name=name,
        members=tuple(one.member for one in found.values()),
        routes=(*routes, *_evident(routes, manifests)),
    )
    check_served(made, manifests)
    write_json(work / SET_FILE, document(made))
    read_set(work)
    check_set(work, None)
    return made


def _evident(routes: Sequence[Route], manifests: Mapping[str, Mapping[str, Any]]) -> list[Route]:
    """A row for each task that no row names and one member alone does."""
    open_questions = ambiguous(routes, manifests)
    routed = {route.task for route in routes}
    return [
        Route(task=task["name"], member=name)
        for name, manifest in manifests.items()
        for task in manifest["tasks"]
        if task["name"] not in routed and task["name"] not in open_questions
    ]


def _local(package: Path, work: Path) -> _Found:
    """A package on this machine, checked and linked into the set."""
    if is_set(package):
        raise BadArtifact(f"{package} is a set itself.", "A set holds packages: name the members you want.")
    checked = check_contents(package.resolve(), None)
    name = str(checked.manifest["name"])
    if (work / name).exists():
        raise UsageError(f"two packages are named {name}.", "A set holds each package once.")
    for path in files_in(package.resolve()):
        link_or_copy(package.resolve() / path, work / name / path)
    member = Member(name=name, where=name, manifest_sha256=checked.files[MANIFEST_FILE])
    return _Found(member, checked.manifest)


def _published(where: str, opened: Callable[[str], Source]) -> _Found:
    """A published package: its kobako.json is fetched to learn its name, tasks and digest, and nothing else."""
    if parse(where).kind == "web" and without_secrets(where) != where:
        raise UsageError(f"{without_secrets(where)} would be published with a login in it.", "Leave the login out.")
    source = opened(where)
    try:
        listing = source.listing()
        if MANIFEST_FILE not in listing.files:
            is_one = " itself a set" if SET_FILE in listing.files else " not a kobako package"
            raise BadArtifact(f"{source.label} is{is_one}.", "A set holds packages: name those you want.")
        with tempfile.TemporaryDirectory(prefix="kobako-set-") as scratch:
            workspace = Workspace(Path(scratch))
            workspace.prepare()
            obtain_all(source, [listing.files[MANIFEST_FILE]], workspace, Meter(lambda _: None), 1)
            manifest = read_manifest(workspace.tree)
            digest = sha256_of(workspace.tree / MANIFEST_FILE)
    finally:
        source.close()
    return _Found(Member(name=str(manifest["name"]), where=where, manifest_sha256=digest), manifest)
