"""Identity of the caller."""

from __future__ import annotations

import getpass
import os


def caller() -> str:
    """Return the operating system's user name, or the user id where there is no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
