"""Which of a schedule's slots that wait may have their runs now. A pure function, but for pausing.

What counts against the limit are runs that really go on, and those whose creation has begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from registry.runs import statuses
from registry.schedules import schedules, slots
from registry.schedules.slots import Fate, Kind, Slot
from schedules.policy import Catchup, Overlap, Policy, SkipReason
from schedules.subject import Subject

REFUSED = "Refused"
AT_LIMIT = "MaxConcurrency"
CANCELS = "CancelsRunning"
OVERLAP = "Overlap"
DISABLED = "Disabled"
DEPLOYMENT_GONE = "DeploymentGone"


@dataclass(frozen=True)
class Room:
    """What comes of a schedule's slots that wait.

    Attributes:
        begin: Whose runs are created now.
        again: Whose runs may exist: their creation had begun, and nobody knows what came of it.
        changed: Rows that are written before.
        cancel: Runs that are stopped to make room.
        blocked: Whether some wait for a run's end.
    """

    begin: tuple[Slot, ...] = ()
    again: tuple[Slot, ...] = ()
    changed: tuple[Slot, ...] = ()
    cancel: tuple[str, ...] = ()
    blocked: bool = False


def room(subject: Subject, queue: Sequence[Slot], running: Sequence[Slot]) -> Room:
    """What comes of a schedule's slots that wait, the oldest first.

    Args:
        subject: The schedule.
        queue: Its slots that wait and need not wait longer, the oldest first.
        running: Those whose runs go on or whose creation has begun.
    """
    again = [slot for slot in queue if slot.begun]  # a scheduler died, or could not reach Prefect
    fresh = [slot for slot in queue if not slot.begun]
    policy = subject.policy
    superseded = _superseded(policy, fresh)
    fresh = [slot for slot in fresh if slot not in superseded]
    free = max(0, policy.max_concurrency - len(running))
    begin = [replace(slot, begun=True) for slot in fresh[:free]]
    skipped, left = _left(policy, fresh[free:])
    cancels = policy.overlap is Overlap.CANCEL_RUNNING
    return Room(
        begin=tuple(begin),
        again=tuple(again),
        changed=(
            *begin, *skipped, *_told(superseded, Fate.SKIPPED, OVERLAP),
            *_told(left, Fate.WAITING, CANCELS if cancels else AT_LIMIT),
        ),
        cancel=tuple(_runs(running)[: len(left)]) if cancels else (),
        blocked=bool(left),
    )  # fmt: skip


def waits_for(subject: Subject) -> str:
    """What keeps all of a schedule's own slots waiting; "" if nothing does."""
    if subject.error:
        return DEPLOYMENT_GONE
    return "" if subject.enabled else DISABLED


def _superseded(policy: Policy, fresh: Sequence[Slot]) -> list[Slot]:
    """The schedule's own slots whose runs would be stopped at once for newer ones that wait."""
    if policy.overlap is not Overlap.CANCEL_RUNNING:
        return []
    return [slot for slot in fresh if slot.kind == Kind.SCHEDULED][: -policy.max_concurrency]


def _left(policy: Policy, busy: Sequence[Slot]) -> tuple[tuple[Slot, ...], list[Slot]]:
    """Of slots that there is no room for, those that are skipped and those that wait.

    Only the schedule's own are skipped: what somebody has asked for waits.
    """
    own = [slot for slot in busy if slot.kind == Kind.SCHEDULED]
    if policy.overlap is Overlap.SKIP:
        skipped = _told(own, Fate.SKIPPED, OVERLAP)
    elif policy.catchup is not Catchup.ALL:
        skipped = _told(own[:-1], Fate.SKIPPED, SkipReason.NOT_LATEST)
    else:
        skipped = ()
    gone = {slot.key for slot in skipped}
    return skipped, [slot for slot in busy if slot.key not in gone]


def _runs(running: Sequence[Slot]) -> list[str]:
    return [slot.flow_run_id for slot in running if slot.flow_run_id]


def _told(found: Sequence[Slot], fate: Fate, reason: str) -> tuple[Slot, ...]:
    """Those of the slots that this changes, changed."""
    return tuple(
        replace(slot, fate=fate, reason=reason)
        for slot in found
        if (slot.fate, slot.reason) != (fate, reason)
    )


def pause_if_failing(connection: Connection, subject: Subject) -> str:
    """Stop a schedule as many of whose newest runs have failed as its policy says; why, or ""."""
    most = subject.policy.pause_after_failures
    if most is None or not subject.enabled:
        return ""
    newest = slots.last_ended(connection, subject.id, subject.failures_since, most)
    if len(newest) < most or not all(statuses.is_failure(word) for word in newest):
        return ""
    why = f"{most} runs in a row failed."
    schedules.pause(connection, subject.id, why)
    return why
