"""Points in time and durations, as people write and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from infra import local_time
from infra.errors import BadInputError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(rf"(\d{{1,6}})([{''.join(_UNITS)}])")
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def read_since(text: str, now: datetime | None = None) -> datetime:
    """Read a point in time: a duration before now, or ISO 8601, without an offset local time.

    Args:
        text: Such as ``90m``, ``2h``, ``3d``, ``1w`` or ``2026-01-31T12:00:00+00:00``.
        now: The present, by default.

    Raises:
        BadInputError: With the code ``TimeInvalid``.
    """
    try:
        if found := _DURATION.fullmatch(text):
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[found[2]]: int(found[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise BadInputError(
            f"{text[:60]!r} is neither a duration nor a time.",
            "Write 90m, 2h, 3d or 1w, or a time as 2026-01-31T12:00:00+00:00.",
            code="TimeInvalid",
        ) from error


def local(text: str) -> str:
    """Return a time in ISO 8601 in the local time zone; any other text as it is."""
    if not _ISO.fullmatch(text):
        return text
    try:
        return local_time.local(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return text


def localized(text: str) -> str:
    """Return a text with the times in ISO 8601 in it in the local time zone."""
    return _ISO.sub(lambda found: local(found[0]), text)


def local_from_milliseconds(milliseconds: int) -> str:
    """Return a time, given in milliseconds since 1970, in the local time zone."""
    return local_time.local(datetime.fromtimestamp(milliseconds / 1000, UTC))


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            count, rest = divmod(whole, size)
            return f"{count} {unit} {rest // smaller} {name}"
    return f"{whole // 60} min {whole % 60} s"
