"""Diagnosis of pods that ended, from the Job, its pods and their events.

Everything here is a pure function. The reasons are those of the kubelet, the Job controller, and
of the condition ``DisruptionTarget``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from infra.kubernetes import objects, pending
from infra.kubernetes.attempts import REFUSED
from infra.kubernetes.diagnosis import (
    CONFIG_INVALID,
    EVICTED,
    GONE,
    IMAGE_PULL,
    NODE_LOST,
    OOM_KILLED,
    SCRIPT_FAILED,
    START_FAILED,
    TIMEOUT,
    UNSCHEDULABLE,
    Diagnosis,
    diagnose,
    events_of,
    time_of_event,
)
from infra.kubernetes.objects import Object

_DISRUPTED: Mapping[str, tuple[str, str]] = {
    "EvictionByEvictionAPI": (EVICTED, "Its pod was evicted, as when a node is drained"),
    "TerminationByKubelet": (EVICTED, "Its node ended its pod"),
    "PreemptionByScheduler": (EVICTED, "Its pod made room for one of a higher priority"),
    "DeletionByTaintManager": (NODE_LOST, "Its node does not answer or was tainted"),
    "DeletionByPodGC": (NODE_LOST, "Its node is gone"),
}

_REASONS: Mapping[str, tuple[str, str]] = {
    "Evicted": (EVICTED, "Its node evicted its pod"),
    "Preempting": (EVICTED, "Its pod made room for a more important one"),
    "NodeLost": (NODE_LOST, "Its node does not answer"),
    "NodeShutdown": (NODE_LOST, "Its node was shut down"),
    "Shutdown": (NODE_LOST, "Its node was shut down"),
    "Terminated": (NODE_LOST, "Its node was shut down"),
    "DeadlineExceeded": (TIMEOUT, "It ran for longer than it may"),
    "UnexpectedAdmissionError": (UNSCHEDULABLE, "Its node did not admit its pod"),
    "NodeAffinity": (UNSCHEDULABLE, "Its node did not admit its pod"),
}

_KILLED_UNEXPECTEDLY = "Killed"  # by a signal without a reported sender
_ENDS: Mapping[str, tuple[str, str]] = {
    "OOMKilled": (OOM_KILLED, "Its container {name} used more memory than its limit{limit}"),
    _KILLED_UNEXPECTEDLY: (
        OOM_KILLED,
        "Its container {name} was killed, and its node did not say why: most likely it used its "
        "limit{limit} of memory, or the node had none left",
    ),
    "ContainerCannotRun": (START_FAILED, "Its container {name} could not be started"),
    "StartError": (START_FAILED, "Its container {name} could not be started"),
    "ContainerStatusUnknown": (NODE_LOST, "Its node lost sight of its container {name}"),
    "DeadlineExceeded": (TIMEOUT, "It ran for longer than it may"),
}

_JOB_REASONS: Mapping[str, tuple[str, str]] = {
    "DeadlineExceeded": (TIMEOUT, "It ran for longer than it may"),
}

# Events about a pod that no longer exists.
_EVENTS: Mapping[str, tuple[str, str]] = {
    "Evicted": (EVICTED, "Its node evicted its pod"),
    "Preempted": (EVICTED, "Its pod made room for one of a higher priority"),
    "TaintManagerEviction": (NODE_LOST, "Its node does not answer or was tainted"),
    "NodeNotReady": (NODE_LOST, "Its node does not answer"),
}

# Of several failed pods, the one whose category comes first is the most informative.
_TELLING = (NODE_LOST, EVICTED, OOM_KILLED, TIMEOUT, UNSCHEDULABLE, IMAGE_PULL, CONFIG_INVALID,
            START_FAILED, SCRIPT_FAILED, GONE)  # fmt: skip

_KILLED = 137


def diagnose_termination(
    job: Object | None,
    pods: Sequence[Object],
    events: Iterable[Object] = (),
    *,
    now: datetime,
    ran: bool = True,
) -> Diagnosis | None:
    """Diagnose why the Job or one of its pods ended; None while nothing has failed.

    A node that exited with 0 before the first node did is not a failure.

    Args:
        job: The Job; None if it is gone.
        pods: Its pods, also such as are remembered from an earlier look.
        events: Events of the Job and of its pods; others do no harm.
        now: The present time.
        ran: Whether the run had begun in Prefect. A script fails only in a run that has.
    """
    events = list(events)
    over = [objects.condition(job or {}, kind) for kind in ("Failed", "FailureTarget", "Complete")]
    failed = over[0] or over[1]
    known = _JOB_REASONS.get(str(failed.get("reason"))) if failed else None
    if known and failed:
        return diagnose(*known, at=objects.time_of(failed.get("lastTransitionTime")))
    found = [
        one
        for pod in pods
        if (one := _pod_died(pod, events_of(pod, events), now, ran)) is not None
    ]
    if found:
        return min(found, key=lambda one: _TELLING.index(one.category))
    last = failed or over[2]
    if last is None:
        return _refused_for_good(job, pods, events) if job else None
    at = objects.time_of(last.get("lastTransitionTime"))
    lost = _lost(job or {}, events, at or now)
    if failed and lost:
        return replace(lost, at=at)
    if failed:
        why = failed.get("message") or failed.get("reason") or ""
        return diagnose(GONE, f"Its pod is gone: {why}", at=at)
    return diagnose(START_FAILED if not ran else GONE, _SILENT, at=at)


_SILENT = "It ended without telling Prefect how"


# The taint manager reports with one reason that it deletes a pod, and that it does not after all.
_REVOKED = "Cancelling deletion"
# Between a node's silence and the deletion of its pods: see _LOST_NODE in pods.py.
_BEFORE_DELETION = timedelta(seconds=30)
_CLOCKS_DIFFER = timedelta(seconds=10)
_USUAL_GRACE = 30


def _lost(job: Object, events: Iterable[Object], end: datetime) -> Diagnosis | None:
    """What the events report of the end of the Job's pod, which is gone.

    Events stay for an hour. One counts only if it is close enough to the end to be its cause, and
    was not revoked: a node may have been silent for a while, long before the pod was deleted.
    """
    pod = objects.template_of(job)
    grace = timedelta(seconds=pod.get("terminationGracePeriodSeconds", _USUAL_GRACE))
    earliest = end - grace - _BEFORE_DELETION
    found: Diagnosis | None = None
    for at, event in sorted(_timed(job, events), key=lambda one: one[0]):
        if not earliest <= at <= end + _CLOCKS_DIFFER:
            continue
        reason, message = str(event.get("reason")), str(event.get("message", ""))
        if message.startswith(_REVOKED):
            found = None
        elif reason in _EVENTS and found is None:
            category, said = _EVENTS[reason]
            found = diagnose(category, f"{said}: {message}", pod=_subject(event))
    return found


def _timed(job: Object, events: Iterable[Object]) -> Iterator[tuple[datetime, Object]]:
    """The events of the Job's pods that say when."""
    prefix = f"{objects.name_of(job)}-"
    for event in events:
        at = time_of_event(event)
        if at and _subject(event).startswith(prefix):
            yield at, event


def _subject(event: Object) -> str:
    return str((event.get("involvedObject") or {}).get("name", ""))


def _pod_died(pod: Object, events: Sequence[Object], now: datetime, ran: bool) -> Diagnosis | None:
    if any(map(_hopeless, objects.containers_of(pod))):
        return replace(pending.diagnose_pending_pod(pod, events, now), at=now)
    if not objects.is_ended(pod) and not objects.is_overdue(pod, now):
        return None
    looks = (_disrupted, _reasoned, _contained, _deleted, _failed, _silent)
    found = next((one for look in looks if (one := look(pod, ran))), None)
    return replace(found, pod=objects.name_of(pod), at=_ended_at(pod)) if found else None


def _hopeless(container: Object) -> bool:
    waiting = (container.get("state") or {}).get("waiting") or {}
    return waiting.get("reason") == "InvalidImageName"


def _disrupted(pod: Object, _: bool) -> Diagnosis | None:
    found = objects.condition(pod, "DisruptionTarget")
    known = _DISRUPTED.get(str(found.get("reason"))) if found else None
    if found is None or known is None:
        return None
    category, said = known
    why = objects.status_of(pod).get("message") or found.get("message")
    return diagnose(category, f"{said}: {why}" if why else said)


def _reasoned(pod: Object, _: bool) -> Diagnosis | None:
    reason = str(objects.status_of(pod).get("reason") or "")
    known = _REASONS.get(reason)
    if known is None and reason.startswith("OutOf"):
        known = (UNSCHEDULABLE, "Its node had no room for its pod after all")
    if known is None:
        return None
    category, said = known
    why = objects.status_of(pod).get("message")
    return diagnose(category, f"{said}: {why}" if why else said)


# What a runtime reports of an image that does not have the program.
_LASTING = re.compile(r"not found|no such file|permission denied|exec format", re.IGNORECASE)


def _contained(pod: Object, ran: bool) -> Diagnosis | None:
    """Diagnose the first container that failed, whose end a sidecar's never is."""
    sidecars = objects.sidecars_of(pod)
    for container in objects.containers_of(pod):
        if container.get("name") in sidecars:
            continue
        over = (container.get("state") or {}).get("terminated") or {}
        code = int(over.get("exitCode") or 0)
        reason = str(over.get("reason"))
        if not code and reason not in _ENDS:
            continue
        name = str(container.get("name", ""))
        limit = _memory_limit(pod, name)
        if reason not in _ENDS and code == _KILLED and limit and not objects.is_deleted(pod):
            reason = _KILLED_UNEXPECTEDLY
        if known := _ENDS.get(reason):
            category, said = known
            said = said.format(name=name, limit=f" of {limit}" if limit else "")
            # Of others it is the end of their log: see the pod's terminationMessagePolicy.
            why = str(over.get("message") or "") if category == START_FAILED else ""
            lasting = bool(_LASTING.search(why))
            said = f"{said}: {why}" if why else said
            return diagnose(category, said, container=name, lasting=lasting)
        if objects.is_deleted(pod):
            return diagnose(GONE, "Its pod was deleted", container=name)
        category = SCRIPT_FAILED if ran else START_FAILED
        when = "" if ran else ", before the run began"
        said = f"Its container {name} ended with status {code}{when}"
        return diagnose(category, said, container=name, lasting=not ran and code == REFUSED)
    return None


def _deleted(pod: Object, _: bool) -> Diagnosis | None:
    if not objects.is_deleted(pod):
        return None
    if objects.is_ended(pod):
        return diagnose(GONE, "Its pod was deleted")
    return diagnose(NODE_LOST, "Its pod was deleted and does not end: its node does not answer")


def _failed(pod: Object, ran: bool) -> Diagnosis | None:
    status = objects.status_of(pod)
    if status.get("phase") != "Failed":
        return None
    why = status.get("message") or status.get("reason") or "no reason reported"
    return diagnose(SCRIPT_FAILED if ran else START_FAILED, f"Its pod failed: {why}")


def _silent(pod: Object, ran: bool) -> Diagnosis | None:
    """Diagnose a first node that exited with 0 while its run is active in Prefect."""
    if objects.index_of(pod):
        return None
    return diagnose(GONE if ran else START_FAILED, _SILENT)


def _memory_limit(pod: Object, container: str) -> str:
    spec = pod.get("spec") or {}
    for found in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        if found.get("name") == container:
            limits: Object = (found.get("resources") or {}).get("limits") or {}
            return str(limits.get("memory", ""))
    return ""


def _ended_at(pod: Object) -> datetime | None:
    """Time at which the last container ended, else at which the pod was to be deleted."""
    states = [container.get("state") or {} for container in objects.containers_of(pod)]
    finished = [(state.get("terminated") or {}).get("finishedAt") for state in states]
    times = [at for at in map(objects.time_of, finished) if at]
    return max(times, default=objects.time_of(objects.metadata_of(pod).get("deletionTimestamp")))


def _refused_for_good(
    job: Object, pods: Sequence[Object], events: Iterable[Object]
) -> Diagnosis | None:
    """Diagnose a permanent refusal of the Job's pods.

    Pod Security is judged by the pod's manifest and the namespace's labels alone; the Job
    controller would try again until the end of time.
    """
    if len(pods) >= objects.nodes_of(job):
        return None
    refused = [event for event in events_of(job, events) if event.get("reason") == "FailedCreate"]
    if not refused or pending.POD_SECURITY not in str(refused[-1].get("message", "")):
        return None
    return pending.diagnose_pending_job(job, refused)
