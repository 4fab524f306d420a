"""Hiding secrets in the output of workloads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# Shorter ones, such as "true" or "8080", would make any log unreadable, and hide nothing.
_SHORTEST = 6
_HIDDEN = "***"


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Replace each secret, and each line of one, that is long enough by ``***``."""
    lines = {line.strip() for secret in secrets for line in secret.splitlines()}
    long = sorted((line for line in lines if len(line) >= _SHORTEST), key=len, reverse=True)
    if not long:
        return lambda line: line
    known = re.compile("|".join(map(re.escape, long)))
    return lambda line: known.sub(_HIDDEN, line)
