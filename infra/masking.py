"""Passwords and tokens in URLs, which no log, message or error shows."""

from __future__ import annotations

import re

MASK = "***"

_USER = re.compile(r"(?<=://)[^/?#\s'\"<>]*@")
_VALUE = re.compile(
    r"""([?&;]
        (?:[\w.-]*(?:token|secret|passw(?:or)?d|signature|credentials?|api[-_]?key|access[-_]?key)
          |(?:[\w.-]*[-_.])?(?:key|sig|auth|passphrase))
        =)[^&;\s'"<>#]+""",
    re.IGNORECASE | re.VERBOSE,
)


def mask(text: str) -> str:
    """``text`` with users, passwords and secret values of the URLs in it replaced."""
    if "://" not in text:
        return text
    return _VALUE.sub(rf"\1{MASK}", _USER.sub(f"{MASK}@", text))
