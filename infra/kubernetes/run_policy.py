"""The policy for runs on a cluster: a run's next state, from Prefect's and the cluster's status.

:func:`decide` is pure; ``reconciler.py`` observes and acts. The cluster is observed before
Prefect, so that a Job that was seen belongs to a run that had been Pending before it was read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from infra.kubernetes import diagnosis, objects, pending, termination
from infra.kubernetes.attempts import AttemptRetry
from infra.kubernetes.diagnosis import Diagnosis
from infra.kubernetes.jobs import AttemptStatus
from infra.kubernetes.objects import Object
from infra.state_details import CREATE_FAILED, TIMED_OUT

SILENT = "The cluster does not answer."

# A worker that has claimed a run and created no Job for it in this time is dead.
SUBMITTING = timedelta(seconds=60)
# A worker may be creating the Job when the run is stopped.
STARTING = timedelta(seconds=10)
# The engine's last state may still be on its way to Prefect when its pod has ended.
SETTLING = timedelta(seconds=10)
# The pod of an ended run cleans up and ends by itself.
ENDING = timedelta(seconds=30)

# The number of attempts in a row that failed to start and are retried, the first after this delay,
# each further one after twice the delay.
MOST_RETRIES = 3
_FIRST_DELAY = timedelta(seconds=5)
# Causes of an end before the run began that a retry may not meet.
_REPEATED = {
    diagnosis.START_FAILED, diagnosis.EVICTED, diagnosis.NODE_LOST, diagnosis.UNSCHEDULABLE,
}  # fmt: skip
# How long a training that releases its nodes leaves them to others.
_LETTING_GO = timedelta(seconds=60)

_LONGEST_WAITING = 500
_RESUMED = {diagnosis.EVICTED, diagnosis.NODE_LOST, diagnosis.GONE, diagnosis.TIMEOUT}


@dataclass(frozen=True)
class RunCase:
    """The observed status of a run in Prefect and of its attempts on the cluster.

    Attributes:
        flow_run_id: The run.
        state: The type of its state in Prefect; None if Prefect has no such run.
        since: When it got that state.
        attempt: The number of its newest attempt; 0 before the first.
        failures: How many attempts before that, in a row, failed to start.
        waiting_since: When the first of these began; None if unknown.
        found: The objects of that attempt on the cluster.
        others: The objects of other attempts.
        events: The cluster's events, where they were read.
        now: The present time.
        pending: How long its pods may take to start, once they have nodes.
        queue: How long they may wait for resources that others occupy; None for ever.
        could_hold: Whether the cluster's nodes could hold them if empty; None if unknown.
        queued_at: When it was last observed in the queue.
        looked: Whether the cluster answered. If not, its objects are unknown.
    """

    flow_run_id: str
    state: str | None
    since: datetime
    attempt: int
    now: datetime
    pending: timedelta
    failures: int = 0
    waiting_since: datetime | None = None
    queue: timedelta | None = None
    could_hold: bool | None = None
    queued_at: datetime | None = None
    found: AttemptStatus | None = None
    others: tuple[AttemptStatus, ...] = ()
    events: tuple[Object, ...] = ()
    looked: bool = True

    @property
    def age(self) -> timedelta:
        """The time since it got its state."""
        return self.now - self.since

    @property
    def is_active(self) -> bool:
        """Whether the newest attempt has active objects."""
        return self.found is not None and self.found.is_active


@dataclass(frozen=True)
class NextState:
    """The state that a run gets: its type in Prefect, its detail or Prefect's name, a message.

    One of the type SCHEDULED is due after ``delay``.
    """

    type: str
    detail: str
    message: str
    delay: timedelta = timedelta(0)


@dataclass(frozen=True)
class RunDecision:
    """What to do about a run.

    Attributes:
        stop: Attempts to delete.
        next_state: Its new state; None to leave its state.
        waiting: The reason to record why it waits; "" for none, None to leave the record.
        died: The diagnosis of its end; its container's last lines are saved.
        queued: Whether it waits for resources that others occupy.
        retry: Its attempt is replaced by another one.
    """

    stop: tuple[AttemptStatus, ...] = ()
    next_state: NextState | None = None
    waiting: str | None = None
    died: Diagnosis | None = None
    queued: bool = False
    retry: AttemptRetry | None = None


def decide(case: RunCase) -> RunDecision:
    """Decide what to do about a run. Pure."""
    if not case.looked:
        return RunDecision(waiting=SILENT) if case.state == "PENDING" else RunDecision()
    decision = _RULES.get(case.state or "", _over)(case)
    stale = tuple(one for one in case.others if one.is_active)
    return replace(decision, stop=(*stale, *decision.stop))


def _over(case: RunCase) -> RunDecision:
    """Delete what is active of a run that has ended or was deleted."""
    found = case.found
    if found is None or not found.is_active:
        return RunDecision()
    asked = any(map(objects.is_deleted, found.jobs)) or (
        # Else the Job's controller deletes them, and the Job is to be seen for a while.
        any(map(objects.is_deleted, found.pods))
        and not all(map(objects.is_concluding, found.jobs))
    )
    if asked or case.state in {None, "CANCELLED"} or case.age > ENDING:
        return RunDecision(stop=(found,))
    return RunDecision()


def _scheduled(case: RunCase) -> RunDecision:
    """Delete what is active of an earlier attempt: no worker has claimed the run."""
    return RunDecision(stop=(case.found,)) if case.found and case.is_active else RunDecision()


def _pending(case: RunCase) -> RunDecision:
    found = case.found
    if found is None:
        return _submitting(case)
    if found.job is None:
        return RunDecision(stop=(found,)) if found.is_active else _gone(case, found, _not_created)
    dead = termination.diagnose_termination(
        found.job, found.own_pods, case.events, now=case.now, ran=False
    )
    if dead:
        return _not_begun(case, found, dead) if _settled(case, dead) else RunDecision()
    waits = pending.diagnose_pending(found.job, found.own_pods, case.events, case.now)
    if waits:
        return _waiting(case, found, waits, _not_created)
    # It runs, and has not reported to Prefect: the imports of a flow take their time.
    imports = Diagnosis("", "Its container runs, and has not begun the run yet.")
    return _starting(case, found, imports, 2 * case.pending, _not_created)


def _submitting(case: RunCase) -> RunDecision:
    """Decide about a run that a worker has claimed and that has no Job yet."""
    if case.age <= SUBMITTING:
        return RunDecision()
    dead = diagnosis.diagnose(diagnosis.START_FAILED, "Its worker died before it made its Job")
    if case.attempt == 0:  # a worker that has not even begun an attempt says nothing of the run
        again = "Its worker died before it began; it is queued again."
        return RunDecision(next_state=NextState("SCHEDULED", "Scheduled", again), waiting="")
    return _not_begun(case, AttemptStatus(case.flow_run_id, case.attempt), dead)


def _not_begun(case: RunCase, found: AttemptStatus, dead: Diagnosis) -> RunDecision:
    """Retry an attempt that ended before the run began, a few times.

    That is safe: Prefect has the run as Pending, so no user code has been executed.
    """
    if dead.category not in _REPEATED or dead.lasting or case.failures >= MOST_RETRIES:
        if case.failures:
            more = f"{dead.message} {case.failures + 1} attempts ended before the run began."
            dead = replace(dead, message=more)
        return _dead(case, found, dead, _not_created)
    failures = case.failures + 1
    delay = _FIRST_DELAY * 2**case.failures
    said = (
        f"{dead.category}: {dead.message} The run had not begun. It is tried again "
        f"({failures} of {MOST_RETRIES}) in {delay.seconds} s."
    )
    return RunDecision(
        stop=(found,) if found.is_active else (),
        next_state=NextState("SCHEDULED", "Scheduled", said, delay),
        waiting="",
        died=dead,
        retry=AttemptRetry(f"{dead.category}: {dead.message}", failures),
    )


def _running(case: RunCase) -> RunDecision:
    found = case.found
    if found is None or found.job is None:
        if found and found.is_active:
            return RunDecision(stop=(found,))
        if case.attempt == 0 or case.age <= SETTLING:
            return RunDecision()  # without an attempt it was not ours to start
        return _gone(case, found, _crashed)
    dead = termination.diagnose_termination(found.job, found.own_pods, case.events, now=case.now)
    if dead:
        return _dead(case, found, dead, _crashed) if _settled(case, dead) else RunDecision()
    waits = pending.diagnose_pending(found.job, found.own_pods, case.events, case.now)
    if waits is None:
        return RunDecision(waiting="")
    return _waiting(case, found, waits, _crashed)


def _cancelling(case: RunCase) -> RunDecision:
    """Set the run to Cancelled once nothing of it is active."""
    if case.is_active or any(one.is_active for one in case.others):
        return RunDecision(stop=(case.found,) if case.found and case.is_active else ())
    if case.found is None and case.age <= STARTING:
        return RunDecision()
    return RunDecision(next_state=NextState("CANCELLED", "Cancelled", "Stopped."), waiting="")


_RULES: Mapping[str, Callable[[RunCase], RunDecision]] = {
    "SCHEDULED": _scheduled,
    "PENDING": _pending,
    "RUNNING": _running,
    "PAUSED": _running,
    "CANCELLING": _cancelling,
}


def _settled(case: RunCase, dead: Diagnosis) -> bool:
    # A pod deleted before the end of its grace period has an end time in the future.
    return dead.at is None or abs(case.now - dead.at) > SETTLING


def _gone(
    case: RunCase,
    found: AttemptStatus | None,
    end_state: Callable[[RunCase, Diagnosis], NextState],
) -> RunDecision:
    """End a run whose Job has been deleted."""
    died = termination.diagnose_termination(None, found.own_pods, now=case.now) if found else None
    gone = died or diagnosis.diagnose(diagnosis.GONE, "Its Job was deleted")
    return RunDecision(next_state=end_state(case, gone), waiting="", died=gone)


def _dead(
    case: RunCase,
    found: AttemptStatus,
    dead: Diagnosis,
    end_state: Callable[[RunCase, Diagnosis], NextState],
) -> RunDecision:
    stop = (found,) if found.is_active else ()
    return RunDecision(stop=stop, next_state=end_state(case, dead), waiting="", died=dead)


def _waiting(
    case: RunCase,
    found: AttemptStatus,
    waits: Diagnosis,
    end_state: Callable[[RunCase, Diagnosis], NextState],
) -> RunDecision:
    """Keep a run in the queue until it has a part of its resources."""
    if not waits.queued or case.could_hold is False:
        return _starting(case, found, replace(waits, queued=False), case.pending, end_state)
    since = case.waiting_since or _made(case, found)
    if case.queue is not None and case.now - since > case.queue:
        return _given_up(case, found, waits, case.queue, end_state)
    if any(map(objects.node_of, found.own_pods)):
        if case.could_hold is None:  # perhaps there never are as many nodes
            return _starting(case, found, replace(waits, queued=False), case.pending, end_state)
        return _holding(case, found, waits)
    return RunDecision(waiting=str(waits)[:_LONGEST_WAITING], queued=True)


def _holding(case: RunCase, found: AttemptStatus, waits: Diagnosis) -> RunDecision:
    """Let a training hold a part of its nodes for a while, then release them.

    Two that have half of their nodes each would wait for each other. So each releases them after
    a time of its own, and is queued again. Its script has not run: that needs all nodes.
    """
    patience = case.pending * (1 + zlib.crc32(case.flow_run_id.encode()) / 2**32)
    since = min(
        (at for at in map(objects.scheduled_at, found.own_pods) if at),
        default=_made(case, found),
    )
    if case.now - since <= patience:
        return RunDecision(waiting=str(waits)[:_LONGEST_WAITING])
    minutes = round((case.now - since).total_seconds() / 60, 1)
    said = f"{waits.message} It lets go of the nodes that it had for {minutes:g} minutes"
    name = "Scheduled" if case.state == "PENDING" else "AwaitingRetry"
    return RunDecision(
        stop=(found,),
        next_state=NextState("SCHEDULED", name, f"{said}, and is queued again.", _LETTING_GO),
        waiting="",
        retry=AttemptRetry(f"{waits.category}: {said}.", case.failures),
    )


def _starting(
    case: RunCase,
    found: AttemptStatus,
    waits: Diagnosis,
    patience: timedelta,
    end_state: Callable[[RunCase, Diagnosis], NextState],
) -> RunDecision:
    """Limit the time that pods take to start, from when they left the queue."""
    times = (
        _made(case, found),
        case.queued_at,
        *map(objects.scheduled_at, found.own_pods),
    )
    if case.now - max(at for at in times if at) <= patience:
        return RunDecision(waiting=str(waits)[:_LONGEST_WAITING])
    return _given_up(case, found, waits, patience, end_state)


def _made(case: RunCase, found: AttemptStatus) -> datetime:
    return objects.created_at(found.job or {}) or case.since


def _given_up(
    case: RunCase,
    found: AttemptStatus,
    waits: Diagnosis,
    waited: timedelta,
    end_state: Callable[[RunCase, Diagnosis], NextState],
) -> RunDecision:
    minutes = round(waited.total_seconds() / 60, 1)
    dead = pending.diagnose_start_timeout(waits, minutes, nodes=objects.nodes_of(found.job or {}))
    return _dead(case, found, dead, end_state)


def _not_created(_: RunCase, dead: Diagnosis) -> NextState:
    return NextState("FAILED", CREATE_FAILED, str(dead))


def _crashed(case: RunCase, dead: Diagnosis) -> NextState:
    """The final state of a run that had begun; its detail is the diagnosis's category."""
    command = f" modelyard runs retry {case.flow_run_id}" if dead.category in _RESUMED else ""
    if dead.category == diagnosis.TIMEOUT:
        return NextState("FAILED", TIMED_OUT, f"{dead}{command}")
    text = f"{dead.message} {dead.hint}".strip()
    return NextState("CRASHED", dead.category, f"{text}{command}")
