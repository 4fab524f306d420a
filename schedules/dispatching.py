"""Dispatch of waiting slots within a schedule's ``max_concurrency``. Pure, except for pausing.

Active runs count against the limit, and runs whose creation has begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from registry.runs import statuses
from registry.schedules import schedules, slots
from registry.schedules.slots import Fate, Kind, Slot
from schedules.policy import Catchup, Overlap, SchedulePolicy, SkipReason
from schedules.schedule import Schedule

REFUSED = "Refused"
AT_LIMIT = "MaxConcurrency"
CANCELS = "CancelsRunning"
OVERLAP = "Overlap"
DISABLED = "Disabled"
DEPLOYMENT_GONE = "DeploymentGone"


@dataclass(frozen=True)
class DispatchPlan:
    """Actions for a schedule's waiting slots.

    Attributes:
        create: Slots whose runs are created now.
        recreate: Slots whose creation began before, with unknown outcome: their runs may exist.
        update: Rows to write before runs are created.
        cancel: Runs to stop because newer slots take their place.
        blocked: Whether slots wait for the end of a run.
    """

    create: tuple[Slot, ...] = ()
    recreate: tuple[Slot, ...] = ()
    update: tuple[Slot, ...] = ()
    cancel: tuple[str, ...] = ()
    blocked: bool = False


def plan_dispatch(
    schedule: Schedule, queue: Sequence[Slot], running: Sequence[Slot]
) -> DispatchPlan:
    """Plan what to do with a schedule's waiting slots, the oldest first.

    Args:
        schedule: The schedule.
        queue: Its waiting slots whose delay has passed, the oldest first.
        running: Slots whose runs are active or whose creation has begun.
    """
    recreate = [slot for slot in queue if slot.begun]  # the scheduler died, or Prefect was away
    fresh = [slot for slot in queue if not slot.begun]
    policy = schedule.policy
    superseded = _superseded(policy, fresh)
    fresh = [slot for slot in fresh if slot not in superseded]
    free = max(0, policy.max_concurrency - len(running))
    create = [replace(slot, begun=True) for slot in fresh[:free]]
    skipped, waiting = _split_excess(policy, fresh[free:])
    cancels = policy.overlap is Overlap.CANCEL_RUNNING
    return DispatchPlan(
        create=tuple(create),
        recreate=tuple(recreate),
        update=(
            *create, *skipped, *_with_fate(superseded, Fate.SKIPPED, OVERLAP),
            *_with_fate(waiting, Fate.WAITING, CANCELS if cancels else AT_LIMIT),
        ),
        cancel=tuple(_runs(running)[: len(waiting)]) if cancels else (),
        blocked=bool(waiting),
    )  # fmt: skip


def blocking_reason(schedule: Schedule) -> str:
    """Reason that all of a schedule's own slots wait; "" if they need not."""
    if schedule.error:
        return DEPLOYMENT_GONE
    return "" if schedule.enabled else DISABLED


def _superseded(policy: SchedulePolicy, fresh: Sequence[Slot]) -> list[Slot]:
    """Slots of the schedule whose runs would be stopped at once for newer waiting slots."""
    if policy.overlap is not Overlap.CANCEL_RUNNING:
        return []
    return [slot for slot in fresh if slot.kind == Kind.SCHEDULED][: -policy.max_concurrency]


def _split_excess(
    policy: SchedulePolicy, excess: Sequence[Slot]
) -> tuple[tuple[Slot, ...], list[Slot]]:
    """Split the slots beyond the limit into those that are skipped and those that wait.

    Only the schedule's own are skipped: slots that a user requested wait.
    """
    own = [slot for slot in excess if slot.kind == Kind.SCHEDULED]
    if policy.overlap is Overlap.SKIP:
        skipped = _with_fate(own, Fate.SKIPPED, OVERLAP)
    elif policy.catchup is not Catchup.ALL:
        skipped = _with_fate(own[:-1], Fate.SKIPPED, SkipReason.NOT_LATEST)
    else:
        skipped = ()
    gone = {slot.key for slot in skipped}
    return skipped, [slot for slot in excess if slot.key not in gone]


def _runs(running: Sequence[Slot]) -> list[str]:
    return [slot.flow_run_id for slot in running if slot.flow_run_id]


def _with_fate(found: Sequence[Slot], fate: Fate, reason: str) -> tuple[Slot, ...]:
    """Set the slots' fate and reason; only the rows that this changes."""
    return tuple(
        replace(slot, fate=fate, reason=reason)
        for slot in found
        if (slot.fate, slot.reason) != (fate, reason)
    )


def pause_if_failing(connection: Connection, schedule: Schedule) -> str:
    """Pause a schedule whose last runs have all failed, as its policy says; the reason, or ""."""
    most = schedule.policy.pause_after_failures
    if most is None or not schedule.enabled:
        return ""
    newest = slots.last_ended(connection, schedule.id, schedule.failures_since, most)
    if len(newest) < most or not all(statuses.is_failure(word) for word in newest):
        return ""
    why = "The last run failed." if most == 1 else f"{most} runs in a row failed."
    schedules.pause(connection, schedule.id, why)
    return why
