"""Command lines that go through the fork server."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from infra.home import Home

# Names of settings whose values differ between the caller and the stack.
UNHEEDED_VARIABLE = "MODELYARD_UNHEEDED"


def socket_path(home: Home) -> Path:
    """Path of the fork server's socket."""
    return home.sockets / "fork.sock"


def accepts(path: Path) -> bool:
    """Whether a server listens at the Unix socket ``path``."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def forkserver_command(home: Home, module: str, *arguments: str) -> list[str]:
    """Build the command line that runs ``module`` in a process of the fork server."""
    client = Path(__file__).with_name("forkclient.py")
    python = [sys.executable, "-I", "-S", str(client), str(socket_path(home))]
    return [*python, module, *arguments]
