"""Package sets: made of packages here and elsewhere, verified as one, all pulled or none, tasks led to members."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kobako.pipeline.errors import (
    BadArtifact,
    IntegrityError,
    NetworkError,
    NotFound,
    OutputError,
    Untrusted,
    UsageError,
)
from kobako.pipeline.publish import PublishRequest, publish
from kobako.pipeline.pull import PullRequest
from kobako.pipeline.registry.roads import open_destination, open_source
from kobako.pipeline.sets.check import package_for, sign_set, verify_set
from kobako.pipeline.sets.make import make_set, parse_assignment
from kobako.pipeline.sets.table import PackageSet, Route, read_set
from kobako.pipeline.sets.travel import Pulled, PulledSet, publish_any, pull_any
from kobako.pipeline.sign import load_key
from kobako.pipeline.signature.trust import Trust, trust_key

from tests.unit.roads.file_server import Faults, FileServer
from tests.unit.roads.packages import ANYBODY, Signer, Watching, contents, leftovers, make_package, noise, task
from tests.unit.roads.test_commands import kobako

TRANSLATOR, READER = "translator-int4", "reader-int4"
SIZE = 40_000


def write(out: Path, name: str, seed: int, *tasks: dict[str, Any]) -> Path:
    targets = {
        "litert": {"litert/model.tflite": noise(SIZE, seed)},
        "executorch": {"executorch/model.pte": noise(SIZE, seed + 100)},
    }  # fmt: skip
    return make_package(out / name, targets, name=name, tasks=list(tasks))


@pytest.fixture
def translator(tmp_path: Path) -> Path:
    return write(tmp_path / "dist", TRANSLATOR, 1, task("translate", "fr", "de"), task("complete"))


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    return write(tmp_path / "dist", READER, 2, task("chat"), task("summarize", "en"))


def make(out: Path, *assigned: str) -> PackageSet:
    return make_set(out, "pair", [parse_assignment(text) for text in assigned], open_source)


@pytest.fixture
def pair(tmp_path: Path, translator: Path, reader: Path, signer: Signer) -> Path:
    """A signed set of two members that travel with it."""
    out = tmp_path / "pair"
    make(out, f"translate={translator}", f"summarize={reader}")
    sign_set(out, load_key(signer.private, None, None, ()))
    return out


@pytest.fixture
def server(pair: Path, signer: Signer, tmp_path: Path) -> Any:
    publish_any(
        PublishRequest(package=pair, trust=signer.trust), open_destination(str(tmp_path / "site/pair")), Watching()
    )
    running = FileServer(tmp_path / "site")
    yield running
    running.close()


def bring(address: str, out: Path, trust: Trust, *targets: str) -> PulledSet:
    source = open_source(address)
    try:
        done = pull_any(source, PullRequest(targets=targets, trust=trust, out=out), Watching(), open_source)
    finally:
        source.close()
    assert isinstance(done, PulledSet)
    return done


def change(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "kobako-set.json"
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def test_a_set_names_its_members_and_who_does_what(pair: Path, translator: Path, signer: Signer) -> None:
    made = read_set(pair)
    assert [member.name for member in made.members] == [TRANSLATOR, READER]
    assert {route.task: route.member for route in made.routes} == {
        "translate": TRANSLATOR, "summarize": READER, "complete": TRANSLATOR, "chat": READER,
    }  # fmt: skip
    assert contents(pair / TRANSLATOR) == contents(translator)
    done = verify_set(pair, signer.trust)
    assert done.signer is not None
    assert (list(done.members), done.absent) == ([TRANSLATOR, READER], ())
    assert leftovers(pair.parent) == []


def test_a_task_goes_to_its_member(pair: Path) -> None:
    assert package_for(pair, "translate", to="fr")[0] == pair / TRANSLATOR
    assert package_for(pair, "summarize")[0] == pair / READER
    with pytest.raises(NotFound, match=r"serves 'classify'.*It serves: translate, summarize"):
        package_for(pair, "classify")
    with pytest.raises(UsageError, match="several tasks"):
        package_for(pair, None)


def test_the_row_with_most_conditions_wins(tmp_path: Path, translator: Path) -> None:
    other = write(tmp_path / "dist", "german", 3, task("translate", "de"), task("classify"))
    expert = write(tmp_path / "dist", "banker", 4, task("classify"), task("translate", "de", "fr"))
    rows = [f"translate={translator}", f"translate:de={other}", f"translate:en/de@bank={expert}"]
    made = make(tmp_path / "set", *rows, f"classify@bank={expert}", f"classify:en/de={other}")

    def chosen(wanted: str, **asked: str) -> str:
        return made.choose(wanted, **asked).member

    assert chosen("translate", to="fr") == TRANSLATOR
    assert chosen("translate", to="de") == chosen("translate", source="fr", to="de", domain="bank") == "german"
    assert chosen("translate", source="en", to="de", domain="bank") == "banker"
    assert chosen("translate", to="de", domain="bank") == "banker"  # a text is English unless somebody says otherwise
    assert chosen("classify", domain="bank") == "banker"
    with pytest.raises(NotFound, match="'classify', to fr"):
        chosen("classify", to="fr")


def test_rows_that_fit_alike_are_no_answer() -> None:
    rows = (Route(task="sort", member="a", to="fr"), Route(task="sort", member="b", domain="law"))
    with pytest.raises(UsageError, match="fit alike"):
        PackageSet(name="s", members=(), routes=rows).choose("sort", to="fr", domain="law")


def test_languages_are_written_as_translators_write_them() -> None:
    row = parse_assignment("translate:eng_Latn/zh-Hans=dist/nllb")
    assert (row.source, row.to) == ("eng_Latn", "zh-Hans")
    made = PackageSet(name="s", members=(), routes=(Route(task="translate", member="a", source="eng_Latn"),))
    assert made.choose("translate").member == "a"
    with pytest.raises(NotFound):
        made.choose("translate", source="fr")


@pytest.mark.parametrize("text", ["translate", "=dist/x", "translate:=x", "Translate=x", "translate:fr/de/en=x", "a="])
def test_an_assignment_that_says_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="does not say which"):
        parse_assignment(text)


def test_what_cannot_be_made_is_refused(tmp_path: Path, pair: Path, translator: Path, reader: Path) -> None:
    out = tmp_path / "new"
    twin = write(tmp_path / "dist", "twin", 5, task("summarize", "en"), task("embed"))
    with pytest.raises(BadArtifact, match=r"both reader-int4 and twin do 'summarize'.*--task summarize=PACKAGE"):
        make(out, f"chat={reader}", f"embed={twin}")
    with pytest.raises(BadArtifact, match="does not do 'classify'"):
        make(out, f"classify={reader}")
    with pytest.raises(BadArtifact, match=r"into 'ja'.*fr, de"):
        make(out, f"translate:ja={translator}")
    with pytest.raises(BadArtifact, match="two routes are for translate:fr"):
        make(out, f"translate:fr={translator}", f"translate:fr={translator}")
    with pytest.raises(BadArtifact, match="is a set itself"):
        make(out, f"translate={pair}")
    with pytest.raises(UsageError, match="two packages are named"):
        make(out, f"chat={reader}", f"summarize={shutil.copytree(reader, tmp_path / 'copy')}")
    with pytest.raises(OutputError, match="not a package set"):
        make(translator, f"chat={reader}")
    (reader / "LICENSE").write_text("changed")
    with pytest.raises(IntegrityError, match="LICENSE"):
        make(out, f"chat={reader}")
    assert not out.exists()
    assert leftovers(tmp_path) == []


def test_a_set_made_again_replaces_the_older_one(pair: Path, translator: Path) -> None:
    make(pair, f"translate={translator}")
    assert [member.name for member in read_set(pair).members] == [TRANSLATOR]
    assert not (pair / READER).exists()


def swap(directory: Path) -> None:
    """A member replaced by another sound package of its name."""
    shutil.rmtree(directory / READER)
    write(directory, READER, 9, task("chat"), task("summarize", "en"))


def link(directory: Path) -> None:
    (directory / READER).rename(directory.parent / "elsewhere")
    (directory / READER).symlink_to(directory.parent / "elsewhere")


DAMAGES: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "another member": (swap, IntegrityError, "reader-int4 was changed after"),
    "a member's file": (lambda d: (d / READER / "LICENSE").write_text("x"), IntegrityError, "LICENSE"),
    "a member gone": (lambda d: shutil.rmtree(d / READER), IntegrityError, "reader-int4 is missing"),
    "a member that is a link": (link, IntegrityError, "link"),
    "a stranger": (lambda d: (d / "more.bin").write_text("x"), IntegrityError, "belongs to no member"),
    "the table": (lambda d: change(d, lambda v: v["routes"].pop()), IntegrityError, "kobako-set.json"),
    "no signature": (lambda d: (d / "model.sig").unlink(), Untrusted, "not signed"),
    "a package's signature": (
        lambda d: shutil.copy(Signer(d.parent / "k").sign(d / READER) / "model.sig", d), Untrusted, "does not know",
    ),
    "a set in the set": (
        lambda d: (d / READER / "kobako-set.json").write_text("{}"), BadArtifact, "is a set itself",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(pair: Path, signer: Signer, damage: str, tmp_path: Path) -> None:
    harm, error, said = DAMAGES[damage]
    harm(pair)
    with pytest.raises(error, match=said):
        verify_set(pair, signer.trust)
    with pytest.raises(error, match=said):
        publish_any(PublishRequest(package=pair, trust=signer.trust), open_destination(str(tmp_path / "p")), Watching())
    assert not (tmp_path / "p").exists()


def test_run_looks_whether_the_member_is_the_one_of_the_table(pair: Path) -> None:
    swap(pair)
    assert package_for(pair, "translate", to="fr")[0] == pair / TRANSLATOR
    with pytest.raises(IntegrityError, match="was changed after"):
        package_for(pair, "chat")


PLACES = ["../reader", "/etc", "a/../../b", "a\\b", "ftp://host/x", "file:///etc", "kobako-set.json", "model.sig/x", ""]


@pytest.mark.parametrize("where", PLACES)
def test_a_place_outside_the_set_is_refused(pair: Path, where: str) -> None:
    change(pair, lambda value: value["members"][1].update(where=where))
    with pytest.raises(BadArtifact, match=r"kobako-set\.json"):
        read_set(pair)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda v: v.update(format_version="2.0"), "Upgrade kobako"),
        (lambda v: v.pop("routes"), "not a valid package set"),
        (lambda v: v["routes"][0].update(member="nobody"), "no member"),
        (lambda v: v["members"][0].update(name=READER.upper()), "differ in capitals only|no member"),
        (lambda v: v["members"][0].update(where=f"{READER}/litert"), "one in the other"),
        (lambda v: v["routes"].append(dict(v["routes"][0])), "two routes are for translate"),
    ],
)
def test_a_table_that_makes_no_sense(pair: Path, edit: Callable[[dict[str, Any]], object], said: str) -> None:
    change(pair, edit)
    with pytest.raises(BadArtifact, match=said):
        read_set(pair)


def test_fields_of_a_later_minor_version_are_passed_over_and_kept(pair: Path, signer: Signer, tmp_path: Path) -> None:
    change(pair, lambda value: value.update(format_version="1.7", colour="red"))
    sign_set(pair, load_key(signer.private, None, None, ()))
    publish_any(PublishRequest(package=pair, trust=signer.trust), open_destination(str(tmp_path / "place")), Watching())
    bring(str(tmp_path / "place"), tmp_path / "out", signer.trust)
    assert json.loads((tmp_path / "out" / "kobako-set.json").read_text())["colour"] == "red"


def test_a_key_for_certain_names_vouches_for_no_other_member(pair: Path, signer: Signer) -> None:
    from dataclasses import replace

    for names, allowed in ((("pair",), False), (("pair", "*-int4"), True)):
        trust = Trust(keys=tuple(replace(key, packages=names) for key in signer.trust.keys))
        if allowed:
            verify_set(pair, trust)
        else:
            with pytest.raises(Untrusted, match="may not sign"):
                verify_set(pair, trust)


def test_all_members_are_pulled_and_twice_transfers_nothing(
    server: FileServer, pair: Path, signer: Signer, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = bring(f"{server.url}/pair", out, signer.trust)
    assert contents(out) == contents(pair)
    assert (done.signer, done.unchanged, len(done.members)) == ("key.pub", False, 2)
    assert done.members[0].package == out / TRANSLATOR
    before, inode = len(server.log), (out / READER / "kobako.json").stat().st_ino
    again = bring(f"{server.url}/pair", out, signer.trust)
    assert (again.unchanged, again.transferred_bytes) == (True, 0)
    assert [path for path, _ in server.log[before:]] == ["/pair/index.json"]
    assert (out / READER / "kobako.json").stat().st_ino == inode
    assert leftovers(tmp_path) == []


def test_only_the_asked_target_of_each_member_comes(server: FileServer, signer: Signer, tmp_path: Path) -> None:
    bring(f"{server.url}/pair", tmp_path / "out", signer.trust, "litert")
    assert not server.requests("model.pte")
    assert len(server.requests("model.tflite")) == 2
    verify_set(tmp_path / "out", signer.trust, ["litert"])
    with pytest.raises(IntegrityError, match="lacks its targets executorch"):
        publish_any(
            PublishRequest(package=tmp_path / "out", trust=signer.trust),
            open_destination(str(tmp_path / "p")),
            Watching(),
        )


def test_one_member_that_fails_leaves_nothing_and_the_next_pull_goes_on(
    server: FileServer, pair: Path, signer: Signer, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    server.faults = Faults(only=f"{READER}/litert/model.tflite", errors=[503] * 20)
    with pytest.raises(NetworkError):
        bring(f"{server.url}/pair", out, signer.trust)
    assert not out.exists()
    server.faults = Faults()
    before = len(server.log)
    bring(f"{server.url}/pair", out, signer.trust)
    assert contents(out) == contents(pair)
    assert not [path for path, _ in server.log[before:] if TRANSLATOR in path]
    assert leftovers(tmp_path) == []


def test_a_new_version_takes_only_the_changed_member(
    server: FileServer, pair: Path, translator: Path, signer: Signer, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bring(f"{server.url}/pair", out, signer.trust)
    newer = write(tmp_path / "newer", "newer", 7, task("summarize", "en"))
    make(pair, f"translate={translator}", f"summarize={newer}")
    sign_set(pair, load_key(signer.private, None, None, ()))
    publish_any(
        PublishRequest(package=pair, trust=signer.trust), open_destination(str(tmp_path / "site/pair")), Watching()
    )
    before = len(server.log)
    bring(f"{server.url}/pair", out, signer.trust)
    assert contents(out) == contents(pair)
    assert not [path for path, _ in server.log[before:] if TRANSLATOR in path]


def test_a_damaged_member_is_mended(server: FileServer, pair: Path, signer: Signer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bring(f"{server.url}/pair", out, signer.trust)
    (out / READER / "LICENSE").unlink()
    (out / READER / "LICENSE").write_text("another")
    done = bring(f"{server.url}/pair", out, signer.trust)
    assert contents(out) == contents(pair)
    assert not done.unchanged


def test_an_unsigned_set_is_refused_before_anything_is_transferred(pair: Path, signer: Signer, tmp_path: Path) -> None:
    (pair / "model.sig").unlink()
    place = str(tmp_path / "place")
    publish_any(PublishRequest(package=pair, trust=ANYBODY), open_destination(place), Watching())
    with pytest.raises(Untrusted, match="not signed"):
        bring(place, tmp_path / "out", signer.trust)
    bring(place, tmp_path / "out", ANYBODY)
    assert contents(tmp_path / "out") == contents(pair)


def test_members_may_lie_elsewhere(tmp_path: Path, translator: Path, reader: Path, signer: Signer) -> None:
    request = PublishRequest(package=reader, trust=ANYBODY)
    publish(request, open_destination(str(tmp_path / "site/reader")), Watching())
    server = FileServer(tmp_path / "site")
    mixed, out = tmp_path / "mixed", tmp_path / "out"
    try:
        make(mixed, f"translate={translator}", f"summarize={server.url}/reader")
        assert not server.requests("model")
        assert sorted(path.name for path in mixed.iterdir()) == ["kobako-set.json", TRANSLATOR]
        sign_set(mixed, load_key(signer.private, None, None, ()))
        assert verify_set(mixed, signer.trust).absent == (READER,)
        with pytest.raises(NotFound, match=rf"{READER} is not here"):
            package_for(mixed, "chat")
        publish_any(
            PublishRequest(package=mixed, trust=signer.trust),
            open_destination(str(tmp_path / "site/mixed")),
            Watching(),
        )
        bring(f"{server.url}/mixed", out, signer.trust)
        assert verify_set(out, signer.trust).absent == ()
        assert contents(out / READER) == contents(reader)
        assert package_for(out, "chat")[0] == out / READER
        # what lies at the address now is another package than the set was made with
        (tmp_path / "other").mkdir()
        newer = write(tmp_path / "other", READER, 8, task("chat"), task("summarize", "en"))
        publish(
            PublishRequest(package=newer, trust=ANYBODY), open_destination(str(tmp_path / "site/reader")), Watching()
        )
        with pytest.raises(IntegrityError, match="not the package that was promised"):
            bring(f"{server.url}/mixed", tmp_path / "late", signer.trust)
        assert not (tmp_path / "late").exists()
    finally:
        server.close()


def test_an_address_of_a_set_is_no_member(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="itself a set"):
        make(tmp_path / "new", f"translate={server.url}/pair")
    with pytest.raises(UsageError, match="login"):
        make(tmp_path / "new", "translate=https://me:secret@example.com/x")


def test_what_stands_there_is_not_overwritten(server: FileServer, reader: Path, signer: Signer) -> None:
    with pytest.raises(OutputError, match="not a package set"):
        bring(f"{server.url}/pair", reader, signer.trust)
    assert (reader / "kobako.json").is_file()


def test_a_package_is_still_a_package(site: FileServer, package: Path, signer: Signer, tmp_path: Path) -> None:
    source = open_source(f"{site.url}/toy")
    done = pull_any(source, PullRequest(targets=(), trust=signer.trust, out=tmp_path / "out"), Watching(), open_source)
    source.close()
    assert isinstance(done, Pulled)
    assert contents(tmp_path / "out") == contents(package)


def test_the_commands(translator: Path, reader: Path, signer: Signer, tmp_path: Path) -> None:
    out, place = tmp_path / "pair", tmp_path / "site"
    made = kobako("set", "make", out, "--task", f"translate={translator}", "--task", f"summarize={reader}")
    assert made.returncode == 0, made.stderr
    assert f"summarize → {READER}" in made.stdout
    assert kobako("sign", out, "--key", signer.private).returncode == 0
    checked = kobako("verify", out, "--key", signer.public)
    assert "a set of 2 packages as promised, signed by key.pub" in checked.stdout
    assert kobako("publish", out, place, "--key", signer.public).returncode == 0
    pulled = kobako("pull", place, "--out", tmp_path / "here", "--key", signer.public)
    assert "2 packages verified, signed by key.pub" in pulled.stdout, pulled.stderr
    refused = kobako("run", tmp_path / "here", "--task", "classify", "text")
    assert refused.returncode == 3
    assert "It serves: translate, summarize, complete, chat" in refused.stderr
    assert kobako("run", translator, "--domain", "law", "text").returncode == 2
    bench = kobako("bench", tmp_path / "here")
    assert "set of packages" in bench.stderr
    assert "Example: kobako set make" in kobako("set", "make", "--help").stdout


def test_the_key_of_a_stranger(pair: Path, tmp_path: Path) -> None:
    with pytest.raises(Untrusted, match="does not know"):
        verify_set(pair, trust_key(Signer(tmp_path / "stranger").public))
