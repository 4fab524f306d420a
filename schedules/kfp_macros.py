"""Macros of Kubeflow Pipelines in the arguments of a pipeline run.

``[[RunUUID]]``, ``[[Index]]``, ``[[ScheduledTime]]``, ``[[CurrentTime]]``, the last two also with
a layout of Go's after a point (``[[ScheduledTime.2006-01-02]]``), and
``{{$.scheduledTime.strftime('%Y-%m-%d')}}``, ``{{$.currentTime.strftime('%Y-%m-%d')}}``. All times
are in UTC. As in KFP, unknown macros and those without a value are left as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.errors import BadInputError
from schedules.macros import strftime

_DEFAULT_LAYOUT = "20060102150405"
_BRACKETS = re.compile(r"\[\[(RunUUID|Index|(ScheduledTime|CurrentTime)(?:\.(.*?))?)\]\]")
_BRACES = re.compile(r"\{\{\$\.(scheduled|current)Time\.strftime\(\s*(['\"])(.*?)\2\s*\)\}\}")

# The parts of a layout of Go's, and the ``strftime`` format of each.
_LAYOUT = {
    "January": "%B",
    "Monday": "%A",
    "Z07:00:00": "Z",
    "Z07:00": "Z",
    "Z070000": "Z",
    "Z0700": "Z",
    "Z07": "Z",
    "-07:00:00": "+00:00:00",
    "-070000": "+000000",
    "-07:00": "+00:00",
    "-0700": "+0000",
    "2006": "%Y",
    "MST": "UTC",
    "Jan": "%b",
    "Mon": "%a",
    "-07": "+00",
    "002": "%j",
    "01": "%m",
    "02": "%d",
    "03": "%I",
    "04": "%M",
    "05": "%S",
    "06": "%y",
    "15": "%H",
    "_2": "%e",
    "PM": "%p",
}
_UNPADDED = {"1": "%m", "2": "%d", "3": "%I", "4": "%M", "5": "%S"}
_PART = re.compile(
    r"January|Monday|(?:Jan|Mon)(?![a-z])|[Z-](?:070000|0700|07(?::00){0,2})|"
    r"_(?=2006)|__2|"
    r"2006|MST|002|0[1-6]|15|_2|PM|pm|[1-5]|[.,](?:0+|9+)(?!\d)"
)


@dataclass(frozen=True)
class RunFacts:
    """Values of a run's macros.

    Attributes:
        run_id: Id of the run.
        now: Creation time of the run.
        slot: Its slot; None if no schedule created it.
        index: Number of the run in its schedule; None without one.
    """

    run_id: str
    now: datetime
    slot: datetime | None = None
    index: int | None = None


def fill(text: str, facts: RunFacts) -> str:
    """Expand the macros in ``text``."""
    return _BRACKETS.sub(
        lambda match: _bracketed(match, facts),
        _BRACES.sub(lambda match: _braced(match, facts), text),
    )


def fill_all(value: Any, facts: RunFacts) -> Any:
    """Expand the macros in all strings of a JSON value; keys are not expanded."""
    if isinstance(value, str):
        return fill(value, facts)
    if isinstance(value, dict):
        return {name: fill_all(inner, facts) for name, inner in value.items()}
    if isinstance(value, list):
        return [fill_all(inner, facts) for inner in value]
    return value


def layout(at: datetime, form: str) -> str:
    """Format an instant in UTC by a layout of Go's, which shows the reference time."""
    at = at.astimezone(UTC)

    def part(match: re.Match[str]) -> str:
        text = match[0]
        if text in _UNPADDED:
            return strftime(at, _UNPADDED[text]).lstrip("0") or "0"
        if text == "pm":
            return strftime(at, "%p").lower()
        if text == "__2":
            return f"{at.timetuple().tm_yday:3}"
        if text[0] in ".,":  # parts of a second: slots have none
            return f"{text[0]}{'0' * (len(text) - 1)}" if text[1] == "0" else ""
        return strftime(at, _LAYOUT.get(text, text))

    return _PART.sub(part, form)


def _bracketed(match: re.Match[str], facts: RunFacts) -> str:
    if match[1] == "RunUUID":
        return facts.run_id or match[0]
    if match[1] == "Index":
        return match[0] if facts.index is None else str(facts.index)
    at = facts.slot if match[2] == "ScheduledTime" else facts.now
    if at is None:
        return match[0]
    return layout(at, _DEFAULT_LAYOUT if match[3] is None else match[3])


def _braced(match: re.Match[str], facts: RunFacts) -> str:
    at = facts.slot if match[1] == "scheduled" else facts.now
    if at is None:
        return match[0]
    try:
        return strftime(at.astimezone(UTC), match[3])
    except BadInputError:
        return match[0]
