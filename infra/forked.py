"""Command lines that go through the fork server."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from infra.home import Home

# Names of the settings that a caller has set and the stack has not, or otherwise.
UNHEEDED_VARIABLE = "MODELYARD_UNHEEDED"


def socket_path(home: Home) -> Path:
    """Where the fork server of ``home`` listens."""
    return home.sockets / "fork.sock"


def accepts(path: Path) -> bool:
    """Whether somebody listens at the Unix socket ``path``."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def command(home: Home, module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` in a process forked from the server."""
    client = Path(__file__).with_name("forkclient.py")
    python = [sys.executable, "-I", "-S", str(client), str(socket_path(home))]
    return [*python, module, *arguments]
