"""Take the network away from this process, where the kernel allows it.

A network namespace of its own has no interface but a loopback that is down: nothing can be reached, nothing reaches it.
It needs either the right to make one (root) or user namespaces that ordinary users may make (off in some containers,
and on Ubuntu 24.04 unless an AppArmor profile says otherwise). Source: namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


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


@cache
def network_can_be_denied() -> bool:
    """Whether `deny_network` works here, tried in a child. For ``kobako doctor``."""
    code = "import sys; from kobako.pipeline.isolation import deny_network; sys.exit(0 if deny_network() else 1)"
    try:
        return (
            subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
