"""``kobako-set.json``: the members of a set, and the table that leads from a task to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadArtifact, NotFound, UsageError
from ..manifest import MANIFEST_FILE, SET_FILE
from ..names import check_member_name, printable
from ..registry import addresses
from ..signature.bundle import SIGNATURE_FILE
from ..version import __version__
from ..versioned import Format

FORMAT = Format(
    what="package set",
    version="1.0",
    schema=Path(__file__).parent.parent / "set.schema.json",
    limit_bytes=2**20,
)
DO_NOT_USE = "Do not use the set."
ENGLISH = ("en", "eng_Latn")
"""What a text is in when nobody says; translators write one or the other."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One package of a set.

    Attributes:
        where: a relative path inside the set, or the address of a published package (hf://, oci://, https://).
        manifest_sha256: of its kobako.json, which in turn lists the digest of every other file.
    """

    name: str
    where: str
    manifest_sha256: str

    @property
    def inside(self) -> bool:
        """Whether it travels with the set; else it is pulled from its own address."""
        return "://" not in self.where

    @property
    def folder(self) -> str:
        """Where it lies in a set directory, relative."""
        return self.where if self.inside else self.name


@dataclass(frozen=True, kw_only=True)
class Route:
    """One row of the table: under these conditions `task` is done by `member`. None = whatever is asked.

    Attributes:
        source: language of the text: a BCP 47 code, or as the model's tokenizer writes it (``fra_Latn``).
        to: language of the answer.
        domain: a word for what the text is about, such as ``finance``.
    """

    task: str
    member: str
    source: str | None = None
    to: str | None = None
    domain: str | None = None

    @property
    def conditions(self) -> Mapping[str, str]:
        """The conditions that are set, by their names in the file."""
        given = {"from": self.source, "to": self.to, "domain": self.domain}
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        """As it is written on a command line."""
        languages = "/".join(code for code in (self.source, self.to) if code)
        return self.task + (f":{languages}" if languages else "") + (f"@{self.domain}" if self.domain else "")


@dataclass(frozen=True, kw_only=True)
class PackageSet:
    """A checked ``kobako-set.json``."""

    name: str
    members: tuple[Member, ...]
    routes: tuple[Route, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks it serves, in the table's order."""
        return tuple(dict.fromkeys(route.task for route in self.routes))

    def member(self, name: str) -> Member:
        """The member of that name, which every route's is."""
        return next(member for member in self.members if member.name == name)

    def choose(
        self, task: str | None, *, source: str | None = None, to: str | None = None, domain: str | None = None
    ) -> Route:
        """The row that fits best: of those whose conditions all hold, the one with the most of them.

        Without a task, the only one that the set serves; without a `source`, the text is English. Raises UsageError
        when it serves several, or when two rows fit alike; NotFound for what nobody serves.
        """
        if task is None and len(self.tasks) > 1:
            raise UsageError(f"{self.name} is a set of packages for several tasks.", f"Give --task: {self._served()}.")
        asked = {"from": source, "to": to, "domain": domain}
        holding = {"from": (source,) if source else ENGLISH, "to": (to,), "domain": (domain,)}
        fitting = [
            route
            for route in self.routes
            if task in (None, route.task) and all(value in holding[name] for name, value in route.conditions.items())
        ]
        if not fitting:
            said = ", ".join([repr(task), *(f"{name} {value}" for name, value in asked.items() if value)])
            raise NotFound(f"no package of the set {self.name} serves {said}.", f"It serves: {self._served()}.")
        most = max(len(route.conditions) for route in fitting)
        best = [route for route in fitting if len(route.conditions) == most]
        if len({route.member for route in best}) > 1:
            rows = " and ".join(f"{route} ({route.member})" for route in best)
            raise UsageError(f"{rows} fit alike.", "Ask for less: leave --from, --to or --domain out.")
        return best[0]

    def _served(self) -> str:
        return ", ".join(str(route) for route in self.routes)


def is_set(directory: Path) -> bool:
    """Whether a directory is a set of packages, rather than a package."""
    return (directory / SET_FILE).is_file()


def read_set(directory: Path) -> PackageSet:
    """The set in a directory; fields that this version does not know are passed over.

    Raises BadArtifact when there is none, when it is not valid, or when its format is of a later major version.
    """
    path = directory / SET_FILE
    try:
        data = FORMAT.load(path)
    except OSError as error:
        raise BadArtifact(f"{directory} is not a package set: no readable {SET_FILE}.") from error
    FORMAT.check(data, path)
    made = PackageSet(
        name=data["name"],
        members=tuple(
            Member(name=one["name"], where=one["where"], manifest_sha256=one["manifest_sha256"])
            for one in data["members"]
        ),
        routes=tuple(
            Route(task=one["task"], member=one["member"], source=one.get("from"), to=one.get("to"),
                  domain=one.get("domain"))
            for one in data["routes"]
        ),
    )  # fmt: skip
    try:
        _check_names(made)
    except ValueError as error:
        raise BadArtifact(f"{path}: {printable(str(error))[:300]}.", DO_NOT_USE) from error
    return made


def document(package_set: PackageSet) -> Mapping[str, Any]:
    """What stands in ``kobako-set.json``."""
    return {
        "format_version": FORMAT.version,
        "name": package_set.name,
        "kobako_version": __version__,
        "members": [
            {"name": one.name, "where": one.where, "manifest_sha256": one.manifest_sha256}
            for one in package_set.members
        ],
        "routes": [{"task": one.task, "member": one.member, **one.conditions} for one in package_set.routes],
    }


def _check_names(made: PackageSet) -> None:
    """Raise ValueError for a place outside the set, two members in one place, or a row that leads nowhere."""
    check_member_name(made.name)
    names = [check_member_name(member.name) for member in made.members]
    folders = [_checked_folder(member) for member in made.members]
    if len({name.casefold() for name in names}) != len(names):
        raise ValueError("two members have one name, or differ in capitals only")
    for folder in folders:
        parents = {parent.as_posix() for parent in Path(folder).parents} | {folder}
        if sum(other in parents for other in folders) > 1:
            raise ValueError(f"two members lie in {folder!r}, or one in the other")
    if strangers := sorted({route.member for route in made.routes} - set(names)):
        raise ValueError(f"a route leads to {strangers[0]!r}, which is no member")
    rows = [(route.task, *sorted(route.conditions.items())) for route in made.routes]
    twice = next((route for route, row in zip(made.routes, rows, strict=True) if rows.count(row) > 1), None)
    if twice is not None:
        raise ValueError(f"two routes are for {twice}")


def _checked_folder(member: Member) -> str:
    """The member's folder, in lower case. Raises ValueError for one outside the set, or an address of no use."""
    if not member.inside:
        try:
            addresses.parse(member.where)
        except UsageError as error:
            raise ValueError(f"the member {member.name} lies nowhere: {error.what}") from error
    folder = check_member_name(member.folder)
    if folder.partition("/")[0].casefold() in (SET_FILE, SIGNATURE_FILE, MANIFEST_FILE):
        raise ValueError(f"the member {member.name} takes the place of {folder}")
    return folder.casefold()


def check_served(package_set: PackageSet, manifests: Mapping[str, Mapping[str, Any]]) -> None:
    """Hold the table against what the members' manifests declare, as far as the members are here.

    Raises BadArtifact for a row whose member does not do the task or that language, for a task that two members do
    and no row decides, and for a member whose own name is another.
    """
    for name, manifest in manifests.items():
        if manifest["name"] != name:
            raise BadArtifact(f"the member {name} is the package {manifest['name']}.", DO_NOT_USE)
    for route in package_set.routes:
        if route.member in manifests:
            _check_route(route, manifests[route.member])
    for task, names in ambiguous(package_set.routes, manifests).items():
        raise BadArtifact(
            f"both {' and '.join(names)} do {task!r}, and no route says which.", f"Say it: --task {task}=PACKAGE."
        )


def _check_route(route: Route, manifest: Mapping[str, Any]) -> None:
    tasks = {task["name"]: task for task in manifest["tasks"]}
    if route.task not in tasks:
        raise BadArtifact(f"{route.member} does not do {route.task!r}.", f"It does: {', '.join(tasks) or 'nothing'}.")
    languages = tasks[route.task]["languages"]
    if route.to and languages and route.to not in languages:
        raise BadArtifact(
            f"{route.member} does not do {route.task!r} into {route.to!r}.", f"It knows: {', '.join(languages)}."
        )


def ambiguous(routes: Sequence[Route], manifests: Mapping[str, Mapping[str, Any]]) -> Mapping[str, list[str]]:
    """Tasks that no route names although two members or more do them, with those."""
    routed = {route.task for route in routes}
    doing: dict[str, list[str]] = {}
    for name, manifest in manifests.items():
        for task in manifest["tasks"]:
            doing.setdefault(task["name"], []).append(name)
    return {task: names for task, names in doing.items() if len(names) > 1 and task not in routed}
