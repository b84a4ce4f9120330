"""Render chat templates in a process of their own, bounded in time, memory and output: they are programs of strangers.

Jinja2's sandbox keeps a template from Python's insides, but not from looping for ever, from ``'a' * 10**12`` or from
``10 ** 10 ** 9``, which nothing inside the process can interrupt. So one child per process renders them all: unable to
open files, and, where the kernel can filter system calls, to do anything but compute; killed when it is late.

The child reads ``[engine, template, messages, special_tokens, add_generation_prompt]`` as a JSON line and answers with
``{"text": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from .errors import UnsupportedModel

Engine = Literal["jinja2", "minijinja"]

READY = b"ready\n"
TIME_S = 5.0
"""For one rendering; real templates take milliseconds, and this machine may be busy."""
MEMORY_BYTES = 2**30
TEMPLATE_BYTES = 2**19
OUTPUT_BYTES = 2**24


class _Jail:
    """The child, started on first use and again after it had to be killed. Safe to use from several threads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, question: bytes) -> Mapping[str, str]:
        """The child's answer to one line. Raises UnsupportedModel when it is late, says too much, or dies."""
        with self._lock:
            process = self._running()
            try:
                answer = _converse(process, question)
            except BaseException:
                self.close()
                raise
            if answer is None:
                self.close()
                raise UnsupportedModel(
                    f"the chat template did not finish within {TIME_S:.0f} s, {OUTPUT_BYTES >> 20} MiB of text and "
                    f"{MEMORY_BYTES >> 30} GiB of memory.",
                    "Do not use the model: no honest template needs that much.",
                )
            found: Mapping[str, str] = json.loads(answer)
            return found

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kobako.pipeline.jail"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                env={name: value for name, value in os.environ.items() if name in PASSED_ON},
            )  # fmt: skip
            atexit.register(self.close)
            assert self._process.stdout is not None
            if self._process.stdout.readline() != READY:
                self.close()
                raise UnsupportedModel("the process that renders chat templates does not start.", "See kobako doctor.")
        return self._process

    def close(self) -> None:
        """Kill the child; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            process.wait()


WARM_UP = (
    "{{ [1] | tojson }}{{ strftime_now('%A %d %B %Y %Z') }}{{ 'a' | wordwrap }}{{ [1] | pprint }}{{ lipsum(1) }}",
    "{{ '<a>' | striptags }}",
    "{{ [1] | tojson }}{{ strftime_now('%A') }}",
    "{{ raise_exception('no') }}",
    "{{ 'a'.nothing() }}",
    "{{ 1 + 'a' }}",
    "{% if %}",
)
"""Templates that succeed and fail in every way, so that whatever the engines import late is there before the limits."""

PASSED_ON = frozenset({"PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "SYSTEMROOT"})
"""The environment that the child sees: no tokens, no passwords."""
_JAIL = _Jail()


def rendered(
    engine: Engine,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
) -> str:
    """`rendering.render` or `rendering.render_minijinja` in the child. Raises UnsupportedModel as they do, or when
    the template is too large, takes too long or too much memory, or says too much.
    """
    if len(template) > TEMPLATE_BYTES:
        raise UnsupportedModel(
            f"the chat template has {len(template):,} characters, more than any template should.",
            "Do not use the model.",
        )
    try:
        question = json.dumps([engine, template, list(messages), dict(special_tokens), add_generation_prompt])
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedModel(f"the conversation cannot be given to the chat template: {error}.") from error
    answer = _JAIL.ask(question.encode() + b"\n")
    if "error" in answer:
        raise UnsupportedModel(answer["error"])
    return answer["text"]


def _converse(process: subprocess.Popen[bytes], question: bytes) -> bytes | None:
    """Write the question, read the line that answers it; None when time or output is used up, or the child died."""
    assert process.stdin is not None
    assert process.stdout is not None
    deadline = time.monotonic() + TIME_S
    answer = bytearray()
    left = memoryview(question)
    source, sink = process.stdout.fileno(), process.stdin.fileno()
    os.set_blocking(sink, False)
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        selector.register(sink, selectors.EVENT_WRITE)
        while not answer.endswith(b"\n"):
            ready = [key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))]
            if time.monotonic() > deadline or len(answer) > 2 * OUTPUT_BYTES:
                return None
            if sink in ready:
                try:
                    left = left[os.write(sink, left) :]
                except BrokenPipeError:
                    return None
                if not left:
                    selector.unregister(sink)
            if source in ready:
                piece = os.read(source, 1 << 16)
                if not piece:
                    return None
                answer += piece
    return bytes(answer)


def _confine() -> None:
    """Give up what rendering text does not need: network, memory, environment, and opening anything (no descriptor may
    be had, not even in place of one that is closed). Where the kernel can filter system calls, nothing but computing is
    left; elsewhere programs can be started and files removed. Where a system lacks a limit, the others and the clock
    remain.
    """
    import resource

    from .isolation import deny_all_but_computing, deny_network

    time.localtime()  # reads the time zone, while files can still be read
    os.chdir("/")
    for name in set(os.environ) - {"TZ"}:
        del os.environ[name]
    deny_network()
    bounds = {
        "RLIMIT_NOFILE": 0,
        "RLIMIT_AS": MEMORY_BYTES, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0, "RLIMIT_STACK": 2**23,
    }  # fmt: skip
    for name, bound in bounds.items():
        kind = getattr(resource, name, None)
        if kind is not None:
            try:
                resource.setrlimit(kind, (bound, bound))
            except (ValueError, OSError):
                continue
    deny_all_but_computing()


def main() -> None:
    """Answer questions until the parent closes the pipe."""
    from .rendering import render, render_minijinja

    for template in WARM_UP:
        for try_out in (render, render_minijinja):
            with suppress(UnsupportedModel):
                try_out(template, [], {})

    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    _confine()
    _write(answers.fileno(), READY)
    for line in sys.stdin.buffer:
        engine, template, messages, special_tokens, add_generation_prompt = json.loads(line)
        said: dict[str, str]
        try:
            text = (render if engine == "jinja2" else render_minijinja)(
                template, messages, special_tokens, add_generation_prompt
            )
            said = {"text": text} if len(text) <= OUTPUT_BYTES // 4 else {"error": "the chat template says too much."}
        except UnsupportedModel as error:
            said = {"error": error.what[:2000]}
        _write(answers.fileno(), json.dumps(said).encode() + b"\n")


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


if __name__ == "__main__":
    main()
