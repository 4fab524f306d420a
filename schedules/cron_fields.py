"""Parser of cron expressions into the values that each field allows.

The grammar is that of robfig/cron v1, which Kubeflow Pipelines uses, without the errors that it
accepts silently (an empty element of a list, ``*-5``). A field is a list of ranges, separated by
commas:

- ``*`` or ``?``: every value; ``*/n``: every n-th value, from the lowest on
- ``a``, ``a-b``: one value, or all from the first to the last
- ``a-b/n``: every n-th of those; ``a/n``: every n-th from a to the highest

Months and weekdays may be given by the first three letters of their English names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from infra.errors import BadInputError

_LONGEST = 1000

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class _FieldKind(NamedTuple):
    """Range and names of a field's values."""

    name: str
    low: int
    high: int
    names: dict[str, int]

    @property
    def allowed_values(self) -> str:
        text = f"Allowed are {self.low} to {self.high}"
        if self.names:
            first, last = next(iter(self.names)), next(reversed(self.names))
            text += f" or {first.upper()} to {last.upper()}"
        if self.names and not self.low:
            text += " (0 is Sunday)"
        return f"{text}, '*', '?', ranges such as {self.low}-{self.low + 2}, steps and lists."


_SECOND = _FieldKind("second", 0, 59, {})
_MINUTE = _FieldKind("minute", 0, 59, {})
_HOUR = _FieldKind("hour", 0, 23, {})
_DAY = _FieldKind("day-of-month", 1, 31, {})
_MONTH = _FieldKind("month", 1, 12, {name: place for place, name in enumerate(_MONTHS, 1)})
_WEEKDAY = _FieldKind("day-of-week", 0, 6, {name: place for place, name in enumerate(_WEEKDAYS)})
_KINDS = (_SECOND, _MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)

_DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}

_NUMBER = re.compile(r"[0-9]{1,9}")
_WORD = re.compile(r"[0-9A-Za-z]+")
_EXTENSION = re.compile(
    r"(?:[0-9]{1,2}|[A-Z]{3})?(?:L|W|LW|#[0-9L]+)|L-[0-9]+|[HR](?:\([0-9-]*\))?"
)
_DAYS_OF_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class CronFields:
    """Values that the fields of a cron expression allow.

    Attributes:
        seconds: Seconds of a minute.
        minutes: Minutes of an hour.
        hours: Hours of a day.
        days: Days of a month.
        months: Months, from 1.
        weekdays: Days of a week, from 0 for Sunday.
        both_days: Whether a day must be in ``days`` and in ``weekdays``, as it must if either has
            ``*`` or ``?``; otherwise one of them is enough.
        notice: Note on how an ambiguous expression was read; "" for none.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both_days: bool
    notice: str


def read_fields(expression: str) -> CronFields:
    """Parse six fields with seconds first, or five, or a word such as ``@daily``.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    if len(expression) > _LONGEST:
        raise BadInputError(
            f"The cron expression is too long: {len(expression)} characters.",
            f"Give at most {_LONGEST}.", code="CronTooLong",
        )  # fmt: skip
    given = expression.split()
    if not given:
        raise BadInputError(
            "The cron expression is empty.",
            "Give six fields: second, minute, hour, day-of-month, month, day-of-week.",
            code="CronEmpty",
        )
    if given[0].startswith("@"):
        given = _described(expression.strip()).split()
    parts, notice = _six(given)
    values, stars = zip(
        *(_field(part, kind) for part, kind in zip(parts, _KINDS, strict=True)), strict=True
    )
    fields = CronFields(
        seconds=tuple(sorted(values[0])),
        minutes=tuple(sorted(values[1])),
        hours=tuple(sorted(values[2])),
        days=frozenset(values[3]),
        months=frozenset(values[4]),
        weekdays=frozenset(values[5]),
        both_days=stars[3] or stars[5],
        notice=notice,
    )
    _check_fires(fields, parts)
    return fields


def _described(word: str) -> str:
    if word not in _DESCRIPTORS:
        raise BadInputError(
            f"The cron expression {word[:40]!r} is not a known word.",
            f"Give one of {', '.join(_DESCRIPTORS)}, or '@every' and a duration such as 1h30m.",
            code="CronWordUnknown",
        )
    return _DESCRIPTORS[word]


def _six(given: list[str]) -> tuple[list[str], str]:
    """Six fields with the seconds first, and a note if only five were given."""
    if given[0].startswith(("TZ=", "CRON_TZ=")):
        raise BadInputError(
            "The cron expression has a time zone.", "Give it as the timezone of the schedule.",
            code="CronZoneInside",
        )  # fmt: skip
    if len(given) == 6:
        return given, ""
    if len(given) != 5:
        raise BadInputError(
            f"The cron expression has {len(given)} field{'s' * (len(given) != 1)}.",
            "Give six: second, minute, hour, day-of-month, month, day-of-week; "
            "or five, without the second.",
            code="CronFieldCount",
        )
    six = ["0", *given]
    return six, (
        "The five fields are minute, hour, day-of-month, month, day-of-week, at second 0. "
        f"With the second first this is '{' '.join(six)}'."
    )


def _field(text: str, kind: _FieldKind) -> tuple[set[int], bool]:
    """Parse a field: its allowed values, and whether it has a star."""
    values: set[int] = set()
    star = False
    for element in text.split(","):
        if not element:
            raise _wrong(kind, text, "has an empty element in its list", "CronFieldEmpty")
        low, high, step = _range(element, kind)
        values.update(range(low, high + 1, step))
        star |= element[0] in "*?"
    return values, star


def _range(element: str, kind: _FieldKind) -> tuple[int, int, int]:
    """Parse an element of a list: its first value, its last value and its step."""
    body, slash, step_text = element.partition("/")
    if body in ("*", "?"):
        low, high = kind.low, kind.high
    else:
        first, hyphen, last = body.partition("-")
        if _EXTENSION.fullmatch(body.upper()) or _EXTENSION.fullmatch(first.upper()):
            raise _wrong(
                kind, element, "uses an extension (L, W, #, R, H) that is not supported",
                "CronExtension",
            )  # fmt: skip
        low = _value(first, element, kind)
        high = _value(last, element, kind) if hyphen else kind.high if slash else low
    if low > high:
        raise _wrong(kind, element, "is a range that ends before it begins", "CronRangeBackwards")
    if not slash:
        return low, high, 1
    if not _NUMBER.fullmatch(step_text):
        raise _wrong(kind, element, "has a step that is not a whole number", "CronFieldInvalid")
    if not int(step_text):
        raise _wrong(kind, element, "has a step of 0", "CronStepZero")
    return low, high, int(step_text)


def _value(text: str, element: str, kind: _FieldKind) -> int:
    named = kind.names.get(text.lower())
    if named is not None:
        return named
    if not _NUMBER.fullmatch(text):
        what = "is not known" if _WORD.fullmatch(text) else "is not a value, range or step"
        raise _wrong(kind, element, what, "CronFieldInvalid")
    if not kind.low <= int(text) <= kind.high:
        raise _wrong(kind, element, "is out of range", "CronValueOutOfRange")
    return int(text)


def _wrong(kind: _FieldKind, element: str, what: str, code: str) -> BadInputError:
    shown = element if len(element) <= 40 else f"{element[:40]}…"
    return BadInputError(
        f"The {kind.name} field of the cron expression: {shown!r} {what}.",
        kind.allowed_values,
        code=code,
    )


def _check_fires(fields: CronFields, parts: list[str]) -> None:
    """Refuse days that no allowed month has.

    Weekdays need no check: within 400 years every month, also a February with 29 days, begins on
    every weekday.
    """
    if not fields.both_days or any(
        day <= _DAYS_OF_MONTHS[month - 1] for day in fields.days for month in fields.months
    ):
        return
    raise BadInputError(
        f"The cron expression never fires: no month of {parts[4]!r} has a day of {parts[3]!r}.",
        "Give a day that one of the months has.", code="CronNeverFires",
    )  # fmt: skip
