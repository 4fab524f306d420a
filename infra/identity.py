"""Who is calling."""

from __future__ import annotations

import getpass
import os


def caller() -> str:
    """The name of the operating system's user, or its number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
