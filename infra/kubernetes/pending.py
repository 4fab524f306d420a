"""Diagnosis of pods that have not started, from the Job, its pods and their events.

Everything here is a pure function. The reasons are those of the scheduler, the kubelet and the
Job controller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from infra.kubernetes import objects
from infra.kubernetes.diagnosis import (
    CONFIG_INVALID,
    HINTS,
    IMAGE_PULL,
    NODE_NEVER_JOINED,
    START_FAILED,
    UNSCHEDULABLE,
    Diagnosis,
    diagnose,
    events_of,
    time_of_event,
)
from infra.kubernetes.objects import Object
from infra.kubernetes.quantities import parse_quantity

POD_SECURITY = "violates PodSecurity"
_POD_SECURITY_HINT = (
    "The namespace enforces a Pod Security Standard. Change what the message names: a NAS as a "
    "claim instead of an NFS server; for a component of a pipeline a user other than root, by "
    "component_user of the cluster's file or set_security_context(run_as_user=...). Or use "
    "another namespace."
)

_SLOW = "Retry it: what was pulled is kept. Or raise pending_minutes in the cluster's file."


_WAITING: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
            "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed",
        ),
        (IMAGE_PULL, "The image {image} cannot be pulled"),
    ),
    "CreateContainerConfigError": (CONFIG_INVALID, "The container cannot be configured"),
    "CreateContainerError": (START_FAILED, "The container cannot be created"),
    "RunContainerError": (START_FAILED, "The container cannot be started"),
}  # fmt: skip

# Events that say why a container is not even created.
_HINDERED: Mapping[str, tuple[str, str]] = {
    "FailedMount": (CONFIG_INVALID, "A volume cannot be mounted"),
    "FailedAttachVolume": (CONFIG_INVALID, "A volume cannot be attached"),
    "FailedCreatePodSandBox": (START_FAILED, "The node cannot prepare the pod"),
}


def diagnose_pending(
    job: Object, pods: Sequence[Object], events: Iterable[Object], now: datetime
) -> Diagnosis | None:
    """Diagnose why not all of the Job's pods have started; None if they have.

    Args:
        job: The Job.
        pods: Its pods.
        events: Events of the Job and of its pods; others do no harm.
        now: The present time.
    """
    events = list(events)
    nodes = objects.nodes_of(job)
    there = sum(objects.is_started(pod) for pod in pods)
    if there >= nodes:
        return None
    found = [
        diagnose_pending_pod(pod, events_of(pod, events), now)
        for pod in pods
        if not objects.is_started(pod)
    ]
    if len(pods) < nodes:
        found.append(diagnose_pending_job(job, events_of(job, events)))
    # The first that is in trouble; a queue is none.
    chosen = max(
        found, key=lambda one: (bool(one.category) and not one.queued, bool(one.category))
    )
    if nodes == 1:
        return chosen
    return replace(chosen, message=f"{there} of {nodes} nodes have started. {chosen.message}")


def diagnose_pending_job(job: Object, events: Sequence[Object]) -> Diagnosis:
    """Diagnose why a Job lacks pods, by the Job's own events."""
    refused = [event for event in events if event.get("reason") == "FailedCreate"]
    if not refused:
        return Diagnosis("", "Its pods are being made.")
    message = str(refused[-1].get("message", ""))
    if "exceeded quota" in message:
        said = f"The namespace's quota is used up: {message}"
        return diagnose(UNSCHEDULABLE, said, queued=_within_the_quota(message))
    found = diagnose(CONFIG_INVALID, f"The cluster refuses its pods: {message}")
    return replace(found, hint=_POD_SECURITY_HINT) if POD_SECURITY in message else found


_QUOTA = re.compile(r"exceeded quota: \S+, requested: (\S+), used: \S+, limited: (\S+)")


def _within_the_quota(message: str) -> bool:
    """Whether the quota would allow the request once other pods have ended."""
    found = _QUOTA.search(message)
    if found is None:
        return True
    requested, limited = map(_amounts, found.groups())
    return all(parse_quantity(amount) <= parse_quantity(limited.get(name, amount))
               for name, amount in requested.items())  # fmt: skip


def _amounts(text: str) -> dict[str, str]:
    """Parse ``requests.cpu=4,pods=1``."""
    return dict(one.split("=", 1) for one in text.split(",") if "=" in one)


# The scheduler's reasons of nodes that are in use, or away for a while.
_BUSY = re.compile(
    r"Insufficient |Too many pods|node\(s\) were unschedulable"
    r"|untolerated taint \{node\.kubernetes\.io/"
)


def diagnose_pending_pod(pod: Object, events: Sequence[Object], now: datetime) -> Diagnosis:
    """Diagnose why a pod has not started, by its status and its own events."""
    name = objects.name_of(pod)
    if not objects.node_of(pod):
        return _scheduling(pod, events)
    for container in objects.containers_of(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        known = _WAITING.get(str(waiting.get("reason")))
        if known:
            category, said = known
            said = said.format(image=container.get("image", ""))
            message = f"{said}: {waiting.get('message') or waiting.get('reason')}"
            return diagnose(category, message, container=str(container.get("name", "")), pod=name)
    return _creating(events, now, name)


def _scheduling(pod: Object, events: Sequence[Object]) -> Diagnosis:
    name = objects.name_of(pod)
    for found in objects.status_of(pod).get("conditions") or ():
        if found.get("type") == "PodScheduled" and found.get("status") == "False":
            scheduling = [event for event in events if event.get("reason") == "FailedScheduling"]
            why = found.get("message") or (scheduling[-1].get("message") if scheduling else "")
            if found.get("reason") == "SchedulingGated":
                return Diagnosis("", "It is held back by a scheduling gate.", pod=name)
            said = f"No node can take it now: {why or 'the scheduler gives no reason'}"
            queued = bool(_BUSY.search(str(why)))
            return diagnose(UNSCHEDULABLE, said, pod=name, queued=queued)
    return Diagnosis("", "It waits for the scheduler.", pod=name)


def _creating(events: Sequence[Object], now: datetime, name: str) -> Diagnosis:
    """Diagnose why a scheduled pod has no container, by the newest event with a reason."""
    for event in reversed(events):
        reason = str(event.get("reason"))
        if reason in _HINDERED:
            category, said = _HINDERED[reason]
            return diagnose(category, f"{said}: {event.get('message', '')}", pod=name)
        if reason == "Pulling":
            at = time_of_event(event) or now
            seconds = max(0, int((now - at).total_seconds()))
            said = str(event.get("message", "")) or "Pulling the image"
            return Diagnosis("", f"{said}, since {seconds} s.", pod=name, slow=True)
        if reason == "Pulled":
            break
    return Diagnosis("", "Its container is being created.", pod=name)


def diagnose_start_timeout(waiting: Diagnosis, minutes: float, *, nodes: int = 1) -> Diagnosis:
    """Diagnose a run that did not start within so many minutes."""
    where = " in the queue" if waiting.queued else ""
    message = f"{waiting.message} It was given up after {minutes:g} minutes{where}."
    if waiting.slow:
        return replace(waiting, category=IMAGE_PULL, message=message, hint=_SLOW)
    category = waiting.category or (NODE_NEVER_JOINED if nodes > 1 else START_FAILED)
    return replace(waiting, category=category, message=message, hint=HINTS[category])
