"""Passwords and tokens in URLs, which no log, message or error shows."""

from __future__ import annotations

import logging
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


class MaskingFilter(logging.Filter):
    """Masks what a logger is given, with the traceback: libraries quote URLs in their errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; none is dropped."""
        record.msg, record.args = mask(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = mask(logging.Formatter().formatException(record.exc_info))
        return True
