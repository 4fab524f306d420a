"""Macros: the time of a slot in the parameters of its run.

A macro is written between ``{{`` and ``}}`` in any string of the parameters:

- ``{{ slot }}``: the slot in UTC, as ``2026-03-01T09:00:00Z``
- ``{{ slot.strftime('%Y-%m-%d') }}``: the slot in UTC, in a format
- ``{{ slot.local }}``, ``{{ slot.local.strftime('%Y-%m-%d') }}``: the same in the schedule's zone,
  whose date differs from UTC's for some hours of each day
- ``{{ 'text' }}``: the text itself, so that ``{{ '{{' }}`` writes two braces

No code is executed, and any other macro is refused when the schedule is written, except those that
begin with ``$.``: Kubeflow's pipelines expand them themselves (:func:`find_foreign`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from infra.errors import BadInputError

_OPENING = "{{"
_FOREIGN = "$."
_MACRO = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_SLOT = re.compile(
    r"slot(?P<local>\.local)?(?:\.strftime\(\s*(?P<quote>['\"])(?P<format>[^'\"]*)(?P=quote)\s*\))?"
)
_QUOTED = re.compile(r"(['\"])(.*)\1", re.DOTALL)
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip

# In English on every machine; the standard library's depend on the locale.
_DIRECTIVES: dict[str, Callable[[datetime], str]] = {
    "Y": lambda at: f"{at.year:04}",
    "y": lambda at: f"{at.year % 100:02}",
    "m": lambda at: f"{at.month:02}",
    "d": lambda at: f"{at.day:02}",
    "e": lambda at: f"{at.day:2}",
    "j": lambda at: f"{at.timetuple().tm_yday:03}",
    "H": lambda at: f"{at.hour:02}",
    "I": lambda at: f"{(at.hour - 1) % 12 + 1:02}",
    "p": lambda at: "AM" if at.hour < 12 else "PM",
    "M": lambda at: f"{at.minute:02}",
    "S": lambda at: f"{at.second:02}",
    "s": lambda at: f"{at.timestamp():.0f}",
    "a": lambda at: _DAYS[at.weekday()][:3],
    "A": lambda at: _DAYS[at.weekday()],
    "b": lambda at: _MONTHS[at.month - 1][:3],
    "B": lambda at: _MONTHS[at.month - 1],
    "u": lambda at: f"{at.isoweekday()}",
    "w": lambda at: f"{at.isoweekday() % 7}",
    "G": lambda at: f"{at.isocalendar().year:04}",
    "V": lambda at: f"{at.isocalendar().week:02}",
    "F": lambda at: f"{at:%Y-%m-%d}",
    "T": lambda at: f"{at:%H:%M:%S}",
    "R": lambda at: f"{at:%H:%M}",
    "z": lambda at: f"{at:%z}",
    "%": lambda _: "%",
}


def check(parameters: Any) -> None:
    """Refuse parameters with an invalid macro.

    Args:
        parameters: A JSON value.

    Raises:
        BadInputError: ``MacroUnknown``, ``MacroFormatInvalid`` or ``MacroNotClosed``.
    """
    fill(parameters, datetime(2000, 1, 1, tzinfo=UTC))


def fill(parameters: Any, slot: datetime, timezone: str = "UTC") -> Any:
    """Expand the macros in all strings of the parameters, in a copy; keys are not expanded.

    Args:
        parameters: A JSON value.
        slot: The slot.
        timezone: Time zone of the schedule.

    Raises:
        BadInputError: As for :func:`check`.
    """
    if isinstance(parameters, str):
        return _filled(parameters, slot, timezone)
    if isinstance(parameters, Mapping):
        return {name: fill(value, slot, timezone) for name, value in parameters.items()}
    if isinstance(parameters, list | tuple):
        return [fill(value, slot, timezone) for value in parameters]
    return parameters


def find_foreign(parameters: Any) -> str:
    """Find the first macro that a pipeline expands itself; "" if there is none."""
    if isinstance(parameters, str):
        found = (match[0] for match in _MACRO.finditer(parameters))
        return next((text for text in found if text[2:].lstrip().startswith(_FOREIGN)), "")
    values = parameters.values() if isinstance(parameters, Mapping) else parameters
    if isinstance(values, str) or not isinstance(values, Iterable):
        return ""
    return next(filter(None, map(find_foreign, values)), "")


def strftime(at: datetime, form: str) -> str:
    """Format an instant, in English.

    Raises:
        BadInputError: ``MacroFormatInvalid``.
    """

    def part(match: re.Match[str]) -> str:
        found = _DIRECTIVES.get(match[1])
        if found is None:
            raise BadInputError(
                f"Unknown directive '%{match[1]}' in the format of a macro.",
                f"Use any of {' '.join('%' + name for name in _DIRECTIVES)}.",
                code="MacroFormatInvalid",
            )
        return found(at)

    return _DIRECTIVE.sub(part, form)


def _filled(text: str, slot: datetime, timezone: str) -> str:
    if _OPENING not in text:
        return text
    done = []
    place = 0
    while (begin := text.find(_OPENING, place)) >= 0:
        match = _MACRO.match(text, begin)
        if match is None:
            raise BadInputError(
                "A parameter has '{{' without '}}' after it.",
                "Close the macro, or write {{ '{{' }} for two braces.",
                code="MacroNotClosed",
            )
        macro = match[1].strip()
        kept = macro.startswith(_FOREIGN)
        done += [text[place:begin], match[0] if kept else _value(macro, slot, timezone)]
        place = match.end()
    return "".join([*done, text[place:]])


def _value(macro: str, slot: datetime, timezone: str) -> str:
    if quoted := _QUOTED.fullmatch(macro):
        return quoted[2]
    found = _SLOT.fullmatch(macro)
    if found is None:
        raise BadInputError(
            f"Unknown macro {macro[:40]!r}.",
            "Use {{ slot }}, {{ slot.strftime('%Y-%m-%d') }}, either with slot.local, "
            "or {{ '{{' }} for two braces.",
            code="MacroUnknown",
        )
    at = slot.astimezone(ZoneInfo(timezone) if found["local"] else UTC)
    if found["format"] is not None:
        return strftime(at, found["format"])
    return at.isoformat() if found["local"] else f"{at:%Y-%m-%dT%H:%M:%SZ}"
