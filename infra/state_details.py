"""The detail of a flow run's state, carried in the message that Prefect keeps.

Prefect's pages and automations filter on Prefect's own state names, so a state keeps one of
those. What the reference adds in brackets, such as ``GoalReached``, goes in front of the message:
``[GoalReached] Best: trial 3``. Homes of earlier versions have it as the state's name.
"""

from __future__ import annotations

import re

CREATE_FAILED = "CreateFailed"
TIMED_OUT = "TimedOut"

# Every name that Prefect itself gives to a flow run's state (``prefect.states``).
PREFECT_NAMES = frozenset({
    "Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Resuming",
    "Pending", "Submitting", "InfrastructurePending", "Running", "Retrying", "Paused", "Suspended",
    "Cancelling", "Cancelled", "Completed", "Failed", TIMED_OUT, "Crashed",
})  # fmt: skip

_ANNOTATED = re.compile(r"\[([A-Z][A-Za-z0-9]*)\] ?")


def annotate(kind: str, detail: str, message: str) -> tuple[str, str]:
    """Build the name and message of a state.

    Args:
        kind: Prefect's type of the state, in capitals.
        detail: The state's detail; empty for none, or one of Prefect's own names.
        message: The message for people.
    """
    if not detail or detail in PREFECT_NAMES:
        return detail or kind.capitalize(), message
    return kind.capitalize(), f"[{detail}] {message}".rstrip()


def detail_of(name: str | None, message: str | None) -> str:
    """Return the detail of a state; empty if it has only one of Prefect's names."""
    if name and name not in PREFECT_NAMES:
        return name
    found = _ANNOTATED.match(message or "")
    return found[1] if found else ""


def text_of(message: str | None) -> str:
    """Remove the detail from a state's message."""
    text = message or ""
    found = _ANNOTATED.match(text)
    return text[found.end() :] if found else text
