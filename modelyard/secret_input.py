"""Secrets for commands: from the environment, a prompt, or standard input."""

from __future__ import annotations

import getpass
import os
import sys

from infra.errors import BadInputError

FROM_INPUT = "-"  # instead of a secret on the command line


def read(what: str, variable: str) -> str:
    """Read a secret: a variable of the environment, else a hidden prompt, else standard input.

    Args:
        what: What it is, for the prompt.
        variable: The variable.

    Raises:
        BadInputError: With the code ``SecretNotGiven``.
    """
    secret = os.environ.get(variable, "")
    if not secret:
        asks = sys.stdin is not None and sys.stdin.isatty()
        secret = getpass.getpass(f"{what}: ") if asks else _line()
    secret = secret.strip()
    if not secret:
        raise BadInputError(
            f"{what} was not given.",
            f"Type it at the prompt, pipe it to standard input, or set {variable}.",
            code="SecretNotGiven",
        )
    return secret


def _line() -> str:
    return sys.stdin.readline() if sys.stdin is not None else ""
