"""Take away from this process what it does not need, where the kernel allows it: the network, or all but computing.

A network namespace of its own has no interface but a loopback that is down: nothing can be reached, nothing reaches it.
It needs either the right to make one (root) or user namespaces that ordinary users may make (off in some containers,
and on Ubuntu 24.04 unless an AppArmor profile says otherwise). Source: namespaces(7), user_namespaces(7).

System calls are filtered by seccomp, which every Linux distribution's kernel has and which needs no rights. Source:
seccomp(2), linux/seccomp.h, linux/filter.h, linux/audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
NO_NEW_PRIVILEGES = 38
FILTER_ALL_THREADS = (1, 1)  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
COMPUTING: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, 317, (0, 1, 3, 9, 10, 11, 12, 13, 14, 15, 24, 25, 28, 35, 39, 60, 96, 131, 202, 219, 228,
                                 230, 231, 318)),
    "aarch64": (0xC00000B7, 277, (63, 64, 57, 222, 226, 215, 214, 134, 135, 139, 124, 216, 233, 101, 172, 93, 169, 132,
                                  98, 128, 113, 115, 94, 278)),
}  # fmt: skip
"""Of each machine: its name in the filter, the number of seccomp(2), and those of read, write, close, mmap, mprotect,
munmap, brk, rt_sigaction, rt_sigprocmask, rt_sigreturn, sched_yield, mremap, madvise, nanosleep, getpid, exit,
gettimeofday, sigaltstack, futex, restart_syscall, clock_gettime, clock_nanosleep, exit_group, getrandom: what it takes
to compute, and to read and write what is open already."""


def deny_network() -> bool:
    """Leave the network for good; whether it worked. Must run before the process has a second thread.

    The process keeps its user: in a new user namespace its ids are mapped to themselves.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) == 0:
        return True
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        pass  # without a map the ids look like nobody's, but files open as before
    return True


def deny_all_but_computing() -> bool:
    """Let every thread of this process only compute, and read and write what it has open; whether it worked.

    Whatever else it asks of the kernel fails with EPERM: opening, removing and renaming files, starting programs and
    processes, signals, sockets. For good; macOS and other machines have no such filter.
    """
    machine = COMPUTING.get(platform.machine())
    if machine is None or not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        return False
    name, seccomp, numbers = machine
    steps = [(LOAD, 0, 0, 4), (JUMP_IF_EQUAL, 1, 0, name), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, 0)]
    steps += [(JUMP_IF_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    described = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.syscall(seccomp, *FILTER_ALL_THREADS, described) == 0)


def network_can_be_denied() -> bool:
    """Whether `deny_network` works here, tried in a child. For ``kobako doctor``."""
    return _works("deny_network")


def calls_can_be_denied() -> bool:
    """Whether `deny_all_but_computing` works here, tried in a child. For ``kobako doctor``."""
    return _works("deny_all_but_computing")


@cache
def _works(function: str) -> bool:
    code = f"import sys; from kobako.pipeline import isolation; sys.exit(0 if isolation.{function}() else 1)"
    try:
        return (
            subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, timeout=60, check=False).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
