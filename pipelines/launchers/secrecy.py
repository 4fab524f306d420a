"""Secrets that a component prints are not told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# Shorter ones, such as "true" or "8080", would make any log unreadable, and hide nothing.
_SHORTEST = 6
_HIDDEN = "***"


def hiding(secrets: Iterable[str]) -> Callable[[str], str]:
    """What puts ``***`` where a line tells a secret, or a line of one, that is long enough."""
    lines = {line.strip() for secret in secrets for line in secret.splitlines()}
    long = sorted((line for line in lines if len(line) >= _SHORTEST), key=len, reverse=True)
    if not long:
        return lambda line: line
    told = re.compile("|".join(map(re.escape, long)))
    return lambda line: told.sub(_HIDDEN, line)
