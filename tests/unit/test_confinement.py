"""What strangers' programs and files can take: templates are bounded, workers have no network and no endless time."""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kobako.pipeline import jail
from kobako.pipeline.errors import NotFound, TargetCrashed, UnsupportedModel
from kobako.pipeline.isolation import COMPUTING, calls_can_be_denied, network_can_be_denied
from kobako.pipeline.process import Limits, Workers
from kobako.pipeline.templates import portable, render, render_minijinja

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
GREEDY = [
    "{{ 'a' * 10**12 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ 'a' | center(10**11) }}",
    "{{ ['a'] * 10**11 }}",
    "{% set ns = namespace(x='a') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{{ 'a' * 50000000 }}",
    "{{ 7 ** (7 ** (7 ** 7)) }}",
    "{{ lipsum(n=10**9) }}",
]
ESCAPES = [
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ (messages | attr('append')).__self__ }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ messages.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second is enough to tell that a template does not end."""
    monkeypatch.setattr(jail, "TIME_S", 0.5)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("template", [ENDLESS, *GREEDY])
def test_a_template_cannot_take_time_or_memory(template: str) -> None:
    started = time.monotonic()
    with pytest.raises(UnsupportedModel):
        render(template, [], {})
    assert time.monotonic() - started < 20  # the limit and the start of another child, on a busy machine
    assert render("{{ 1 + 1 }}", [], {}) == "2"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("template", [ENDLESS, "{{ 'a' * 50000000 }}"])
def test_nor_in_the_phones_engine(template: str) -> None:
    with pytest.raises(UnsupportedModel):
        render_minijinja(template, [], {})


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_cannot_leave_the_sandbox(template: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    try:
        said = render(template.replace("MARK", str(mark)), [{"role": "user", "content": "x"}], {})
    except UnsupportedModel:
        said = ""
    assert "<class" not in said
    assert "root:" not in said
    assert "function" not in said
    assert not mark.exists()


def test_a_huge_template_is_not_even_parsed() -> None:
    for act in (lambda text: render(text, [], {}), portable):
        with pytest.raises(UnsupportedModel, match="characters"):
            act("{{" * 400_000)


def test_a_deep_template_is_refused() -> None:
    for template in ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "{% if 1 %}" * 3000, "{{ x" + ".a" * 20000 + " }}"):
        with pytest.raises(UnsupportedModel):
            render(template, [], {})


CONFINED = """
import ctypes, os, signal, socket, subprocess, sys
from kobako.pipeline import isolation, jail
if {plain}:  # as on a system that cannot filter system calls
    isolation.deny_all_but_computing = lambda: False
jail._confine()
try:
    {attempt}
except (OSError, MemoryError):
    os.write(1, b"refused")
else:
    os.write(1, b"done")
"""
OPENING = {
    "much memory": "bytearray(2 * 10**9)",
    "write a file": 'open("FILE", "w")',
    "read a file": 'open("/etc/hostname")',
    "read a file in place of standard input": 'os.close(0); open("/etc/hostname")',
    "read the parent's environment": 'os.close(0); open(f"/proc/{os.getppid()}/environ")',
    "read its own environment": 'os.close(0); open("/proc/self/environ")',
    "list a directory": 'os.close(0); os.listdir("/")',
    "a second descriptor": "os.dup(1)",
    "a program with pipes": 'subprocess.run(["true"])',
    "a socket": "os.close(0); socket.socket()",
}
BESIDES = {
    "another program in its place": 'os.execv(sys.executable, [sys.executable, "-c", ""])',
    "another process": "os.fork() or os._exit(0)",
    "remove a file": 'os.unlink("THERE")',
    "rename a file": 'os.rename("THERE", "FILE")',
    "make a directory": 'os.mkdir("FILE")',
    "change a file's rights": 'os.chmod("THERE", 0)',
    "ask for a file": 'os.stat("/etc/hostname")',
    "signal the parent": "os.kill(os.getppid(), signal.SIGCONT)",
    "trace the parent": "if ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), 0, 0) < 0: raise OSError",
}


def attempted(attempt: str, tmp_path: Path, *, plain: bool = False) -> str:
    """What comes of it in a process that has confined itself as the renderer does; nothing may come of it outside."""
    (tmp_path / "there").write_text("stays")
    code = attempt.replace("FILE", str(tmp_path / "f")).replace("THERE", str(tmp_path / "there"))
    probe = CONFINED.replace("{plain}", str(plain)).replace("{attempt}", code)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    if done.stdout != "done":
        assert not (tmp_path / "f").exists()
        assert (tmp_path / "there").read_text() == "stays"
    return done.stdout or done.stderr


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("attempt", OPENING)
def test_the_renderer_opens_nothing(attempt: str, plain: bool, tmp_path: Path) -> None:
    """Were the sandbox left after all: what its process could do, with and without a filter of system calls."""
    assert attempted(OPENING[attempt], tmp_path, plain=plain) == "refused"


@pytest.mark.parametrize("attempt", BESIDES)
def test_the_renderer_does_nothing_but_compute(attempt: str, tmp_path: Path) -> None:
    if not calls_can_be_denied():
        assert not (sys.platform == "linux" and platform.machine() in COMPUTING)
        pytest.skip("this system cannot filter system calls; kobako doctor says so")
    assert attempted(BESIDES[attempt], tmp_path) == "refused"


def test_the_attempts_would_succeed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a refusal says something of the confinement."""
    unconfined = CONFINED.replace("jail._confine()", "")
    monkeypatch.setitem(globals(), "CONFINED", unconfined)
    for attempt in ("rename a file", "make a directory", "signal the parent", "ask for a file"):
        home = tmp_path / attempt
        home.mkdir()
        assert attempted(BESIDES[attempt], home) == "done", attempt
    assert attempted(OPENING["read the parent's environment"], tmp_path) == "done"


def test_the_renderer_sees_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "HF_TOKEN" not in jail.PASSED_ON
    assert attempted('assert not set(os.environ) - {"TZ"}', tmp_path) == "done"
    assert attempted('assert os.environ.get("PATH") is None', tmp_path, plain=True) == "done"


@pytest.mark.parametrize("module", ["jail", "worker"])
def test_files_of_the_current_directory_are_not_run(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody builds the model that lies where they are: Python would import its ``json.py`` before its own."""
    for name in ("json", "selectors", "subprocess", "traceback"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    if module == "jail":
        fresh = jail._Jail()
        assert fresh.ask(json.dumps(["jinja2", "{{ 1 + 1 }}", [], {}, False]).encode() + b"\n")["text"] == "2"
        fresh.close()
    else:
        arguments = {"target": "nosuch", "path": "x"}
        with pytest.raises(NotFound):
            Workers(Limits(memory_bytes=10**9, threads=1)).run("inspect", arguments, log=tmp_path / "log")
    assert not (tmp_path / "run").exists()


def test_workers_have_no_network() -> None:
    """A real worker, asked to connect to a server that listens: it cannot, where the kernel lets us say so."""
    if not network_can_be_denied():
        pytest.skip("this kernel or container does not let a process give up its network; kobako doctor says so")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import socket
from kobako.pipeline import worker
def probe(arguments, progress):
    try:
        socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=5).close()
    except OSError as error:
        return f"refused: {{error}}"
    return "connected"
worker.OPERATIONS = {{"probe": probe}}
worker.main()
"""
        done = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps({"operation": "probe", "arguments": {}}),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["value"].startswith("refused")


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["encoder-decoder", "slice"])
def test_a_checkpoint_is_read_without_network(kind: str, tmp_path: Path) -> None:
    """The real operation on the real kinds: it needs no network, and at its end there still is none."""
    if not network_can_be_denied():
        pytest.skip("this kernel or container does not let a process give up its network; kobako doctor says so")
    from dataclasses import replace

    from kobako.pipeline.codec import to_json
    from kobako.pipeline.fetch import fetch, parse
    from kobako.pipeline.reference.slices import parse_slice

    from tests import seq2seq
    from tests.contract import test_per_layer, test_slices

    out, home = tmp_path / "out", tmp_path / "model"
    out.mkdir()
    if kind == "slice":
        test_per_layer.write_checkpoint(home, test_slices.WHOLE)
        cut = parse_slice(test_slices.SLICE).text
    else:
        seq2seq.write_checkpoint(home, seq2seq.SHAPES[0])
        cut = ""
    source = replace(fetch(parse(str(home)), tmp_path / "downloads"), slice=cut)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import socket
from kobako.pipeline import worker
real = worker.OPERATIONS["load"]
def probe(arguments, progress):
    made = real(arguments, progress)
    try:
        socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=5).close()
    except OSError:
        return made
    raise AssertionError("connected")
worker.OPERATIONS = {{"load": probe}}
worker.main()
"""
        arguments = {"source": to_json(source), "out": str(out), "task": None}
        done = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps({"operation": "load", "arguments": arguments}),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "value" in json.loads(done.stdout.splitlines()[-1]), done.stdout[-2000:] + done.stderr[-2000:]


def test_workers_see_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kobako.pipeline import process

    real, seen = subprocess.Popen, tmp_path / "seen"
    names = ("HF_TOKEN", "GITHUB_TOKEN", "KOBAKO_KEY_PASSWORD", "AWS_SECRET_ACCESS_KEY", "ACTIONS_ID_TOKEN_REQUEST_URL")
    for name in (*names, "TOKENIZERS_PARALLELISM", "KEYBOARD"):
        monkeypatch.setenv(name, "hunter2")
    body = f"import os; open({str(seen)!r}, 'w').write(' '.join(os.environ))"

    def popen(arguments: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-c", body], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    with pytest.raises(TargetCrashed):
        Workers(Limits(memory_bytes=10**9, threads=1)).run("op", {}, log=tmp_path / "log")
    shown = set(seen.read_text().split())
    assert not shown & set(names)
    assert {"TOKENIZERS_PARALLELISM", "KEYBOARD", "PATH"} <= shown


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kobako.pipeline import process

    real = subprocess.Popen

    def popen(arguments: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([sys.executable, "-c", "import time; time.sleep(60)"], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(process.subprocess, "Popen", popen)
    started = time.monotonic()
    with pytest.raises(TargetCrashed, match="did not finish within"):
        Workers(Limits(memory_bytes=10**9, threads=1, time_s=0.5)).run("op", {}, log=tmp_path / "log")
    assert time.monotonic() - started < 20
