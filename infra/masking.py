"""Masking of passwords and tokens in URLs, for logs and messages."""

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
    """Replace users, passwords and secret values in the URLs of ``text``."""
    if "://" not in text:
        return text
    return _VALUE.sub(rf"\1{MASK}", _USER.sub(f"{MASK}@", text))


class MaskingFilter(logging.Filter):
    """Logging filter that masks messages and tracebacks: libraries quote URLs in errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record; never drop it."""
        record.msg, record.args = mask(record.getMessage()), ()
        if record.exc_info:
            record.exc_text = mask(logging.Formatter().formatException(record.exc_info))
        return True
