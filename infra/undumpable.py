"""Protection of this process's memory from other processes of the same user.

A script runs as the user of the process that started it, whose environment, memory and open files
hold the platform's credentials. Linux closes all of them (``/proc/PID/environ``, ``mem``, ``fd``,
ptrace, core dumps) once a process is marked as not dumpable. Forks inherit the mark; a program
that is executed starts without it, except one whose file the user may not read.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_PR_SET_DUMPABLE = 4
_ROOT = 0


def protect() -> None:
    """Mark this process as not dumpable; no effect on systems other than Linux.

    Raises:
        OSError: If the kernel refuses.
    """
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def is_init_exposed(variable: str) -> bool:
    """Whether this process's user can read the environment of the container's first process.

    Args:
        variable: One of the container's variables, by which that process is known to have them.
    """
    if os.getuid() == _ROOT or os.getpid() == 1:  # root may read any process
        return False
    try:
        shown = Path("/proc/1/environ").read_bytes()
    except OSError:
        return False
    return any(one.startswith(f"{variable}=".encode()) for one in shown.split(b"\0"))
