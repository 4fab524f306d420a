"""Why a run's pods wait, and what they died of: a stable category, a sentence and a remedy.

Everything here is a pure function of what the API server tells: the Job, its pods and their
events. The reasons are those of Kubernetes itself: of the scheduler, the kubelet, the Job
controller, and of the condition ``DisruptionTarget``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from infra.kubernetes import objects
from infra.kubernetes.objects import Object

IMAGE_PULL = "ImagePull"
UNSCHEDULABLE = "Unschedulable"
OOM_KILLED = "OOMKilled"
EVICTED = "Evicted"
NODE_LOST = "NodeLost"
SCRIPT_FAILED = "ScriptFailed"
TIMEOUT = "Timeout"
CANCELLED = "Cancelled"
CONFIG_INVALID = "ConfigInvalid"
START_FAILED = "StartFailed"
NODE_NEVER_JOINED = "NodeNeverJoined"
GONE = "Gone"

HINTS: Mapping[str, str] = {
    IMAGE_PULL: "Check the image's name, and that the cluster's image_pull_secrets may pull it.",
    UNSCHEDULABLE: "Ask for less, wait for other runs to end, or add nodes that have it.",
    OOM_KILLED: "Take an instance type with more memory, or let the script use less.",
    EVICTED: "Retry it; it resumes from its newest checkpoint, if any. Ask for more storage if it "
    "used more than it had asked for.",
    NODE_LOST: "Retry it; it resumes from its newest checkpoint, if any.",
    SCRIPT_FAILED: "See the last lines of its log.",
    TIMEOUT: "Give it more time, and retry it; it resumes from its newest checkpoint, if any.",
    CANCELLED: "Retry it, if it was not meant to stop.",
    CONFIG_INVALID: "Make what is missing in the cluster's namespace, or correct its name.",
    START_FAILED: "See the last lines of its container; the image must hold Modelyard.",
    NODE_NEVER_JOINED: "Retry it when the cluster has room for all its nodes, or ask for fewer.",
    GONE: "Retry it; it resumes from its newest checkpoint, if any.",
}

_SLOW = "Retry it: what was pulled is kept. Or raise pending_minutes in the cluster's file."


@dataclass(frozen=True)
class Diagnosis:
    """Why a run waits, or what it died of.

    Attributes:
        category: A stable word; empty for a wait that is none of the known ones.
        message: What is the matter, in a sentence.
        hint: How to mend it; may be empty.
        container: The container that it is about, if it is about one.
        pod: The pod that it is about, if it is about one.
        at: When it happened, if that is told.
        slow: Whether it is a wait that is in good order, and only takes long: an image's pull.
    """

    category: str
    message: str
    hint: str = ""
    container: str = ""
    pod: str = ""
    at: datetime | None = None
    slow: bool = False

    def __str__(self) -> str:
        said = f"{self.category}: {self.message}" if self.category else self.message
        return f"{said} {self.hint}".strip()


def made(category: str, message: str, **more: Any) -> Diagnosis:
    """A diagnosis with its category's hint."""
    return Diagnosis(category, _sentence(message), HINTS.get(category, ""), **more)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?" else f"{text}."


def _about(thing: Object, events: Iterable[Object]) -> list[Object]:
    """An object's events, in their order in time."""
    uid, name = objects.metadata_of(thing).get("uid"), objects.name_of(thing)
    found = [
        event
        for event in events
        if (about := event.get("involvedObject") or {}).get("name") == name
        and about.get("uid") in {uid, None, ""}
    ]
    return sorted(found, key=lambda event: str(_time_of_event(event) or ""))


def _time_of_event(event: Object) -> datetime | None:
    series = event.get("series") or {}
    for text in (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
    ):
        if text:
            return objects.time_of(text)
    return None


# --- What it waits for ---

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


def waits(
    job: Object, pods: Sequence[Object], events: Iterable[Object], now: datetime
) -> Diagnosis | None:
    """Why not all of the Job's pods have started; None if they have.

    Args:
        job: The Job.
        pods: Its pods.
        events: Events of the Job and of its pods; others do no harm.
        now: The present time.
    """
    events = list(events)
    nodes = objects.nodes_of(job)
    there = sum(objects.started(pod) for pod in pods)
    if there >= nodes:
        return None
    found = [_pod_waits(pod, _about(pod, events), now) for pod in pods if not objects.started(pod)]
    if len(pods) < nodes:
        found.append(_job_waits(job, _about(job, events)))
    told = max(found, key=lambda one: bool(one.category))  # the first that is in trouble
    if nodes == 1:
        return told
    return replace(told, message=f"{there} of {nodes} nodes have started. {told.message}")


def _job_waits(job: Object, events: Sequence[Object]) -> Diagnosis:
    refused = [event for event in events if event.get("reason") == "FailedCreate"]
    if not refused:
        return Diagnosis("", "Its pods are being made.")
    message = str(refused[-1].get("message", ""))
    if "exceeded quota" in message:
        return made(UNSCHEDULABLE, f"The namespace's quota is used up: {message}")
    return made(CONFIG_INVALID, f"The cluster refuses its pods: {message}")


def _pod_waits(pod: Object, events: Sequence[Object], now: datetime) -> Diagnosis:
    name = objects.name_of(pod)
    if not (pod.get("spec") or {}).get("nodeName"):
        return _scheduling(pod, events)
    for container in objects.containers_of(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        known = _WAITING.get(str(waiting.get("reason")))
        if known:
            category, said = known
            said = said.format(image=container.get("image", ""))
            message = f"{said}: {waiting.get('message') or waiting.get('reason')}"
            return made(category, message, container=str(container.get("name", "")), pod=name)
    return _creating(events, now, name)


def _scheduling(pod: Object, events: Sequence[Object]) -> Diagnosis:
    name = objects.name_of(pod)
    for found in objects.status_of(pod).get("conditions") or ():
        if found.get("type") == "PodScheduled" and found.get("status") == "False":
            told = [event for event in events if event.get("reason") == "FailedScheduling"]
            why = found.get("message") or (told[-1].get("message") if told else "")
            if found.get("reason") == "SchedulingGated":
                return Diagnosis("", "It is held back by a scheduling gate.", pod=name)
            return made(UNSCHEDULABLE, f"No node can take it: {why or 'no reason told'}", pod=name)
    return Diagnosis("", "It waits for the scheduler.", pod=name)


def _creating(events: Sequence[Object], now: datetime, name: str) -> Diagnosis:
    """Why a pod that has a node has no container: by the newest event that tells."""
    for event in reversed(events):
        reason = str(event.get("reason"))
        if reason in _HINDERED:
            category, said = _HINDERED[reason]
            return made(category, f"{said}: {event.get('message', '')}", pod=name)
        if reason == "Pulling":
            at = _time_of_event(event) or now
            seconds = max(0, int((now - at).total_seconds()))
            said = str(event.get("message", "")) or "Pulling the image"
            return Diagnosis("", f"{said}, since {seconds} s.", pod=name, slow=True)
        if reason == "Pulled":
            break
    return Diagnosis("", "Its container is being created.", pod=name)


# --- What it died of ---

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

_KILLED_BY_SOMEBODY = "Killed"  # by a signal that nobody says to have sent: no reason of theirs
_ENDS: Mapping[str, tuple[str, str]] = {
    "OOMKilled": (OOM_KILLED, "Its container {name} used more memory than its limit{limit}"),
    _KILLED_BY_SOMEBODY: (
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

# Events that tell of a pod that is there no more.
_EVENTS: Mapping[str, tuple[str, str]] = {
    "Evicted": (EVICTED, "Its node evicted its pod"),
    "Preempted": (EVICTED, "Its pod made room for one of a higher priority"),
    "TaintManagerEviction": (NODE_LOST, "Its node does not answer or was tainted"),
    "NodeNotReady": (NODE_LOST, "Its node does not answer"),
}

# Of several pods that ended badly, the one tells most whose category comes first.
_TELLING = (NODE_LOST, EVICTED, OOM_KILLED, TIMEOUT, UNSCHEDULABLE, IMAGE_PULL, CONFIG_INVALID,
            START_FAILED, SCRIPT_FAILED, GONE)  # fmt: skip

_KILLED = 137


def died(
    job: Object | None,
    pods: Sequence[Object],
    events: Iterable[Object] = (),
    *,
    now: datetime,
    ran: bool = True,
) -> Diagnosis | None:
    """What the Job or one of its pods died of; None while nothing is over.

    A node of several that ended well before the first one has is no death.

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
        return made(*known, at=objects.time_of(failed.get("lastTransitionTime")))
    found = [
        one for pod in pods if (one := _pod_died(pod, _about(pod, events), now, ran)) is not None
    ]
    if found:
        return min(found, key=lambda one: _TELLING.index(one.category))
    last = failed or over[2]
    if last is None:
        return None
    at = objects.time_of(last.get("lastTransitionTime"))
    told = [one for event in events if (one := _lost(event, job or {}))]
    if failed and told:
        return replace(told[0], at=at)
    if failed:
        why = failed.get("message") or failed.get("reason") or ""
        return made(GONE, f"Its pod is gone: {why}", at=at)
    return made(START_FAILED if not ran else GONE, _SILENT, at=at)


_SILENT = "It ended without telling Prefect how"


def _lost(event: Object, job: Object) -> Diagnosis | None:
    """What an event tells of one of the Job's pods."""
    about = str((event.get("involvedObject") or {}).get("name", ""))
    known = _EVENTS.get(str(event.get("reason")))
    if known is None or not about.startswith(f"{objects.name_of(job)}-"):
        return None
    category, said = known
    return made(category, f"{said}: {event.get('message', '')}", pod=about)


def _pod_died(pod: Object, events: Sequence[Object], now: datetime, ran: bool) -> Diagnosis | None:
    if any(map(_hopeless, objects.containers_of(pod))):
        return replace(_pod_waits(pod, events, now), at=now)
    if not objects.ended(pod) and not objects.overdue(pod, now):
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
    return made(category, f"{said}: {why}" if why else said)


def _reasoned(pod: Object, _: bool) -> Diagnosis | None:
    reason = str(objects.status_of(pod).get("reason") or "")
    known = _REASONS.get(reason)
    if known is None and reason.startswith("OutOf"):
        known = (UNSCHEDULABLE, "Its node had no room for its pod after all")
    if known is None:
        return None
    category, said = known
    why = objects.status_of(pod).get("message")
    return made(category, f"{said}: {why}" if why else said)


def _contained(pod: Object, ran: bool) -> Diagnosis | None:
    """What a container that ended badly died of; of several, the first."""
    for container in objects.containers_of(pod):
        over = (container.get("state") or {}).get("terminated") or {}
        code = int(over.get("exitCode") or 0)
        reason = str(over.get("reason"))
        if not code and reason not in _ENDS:
            continue
        name = str(container.get("name", ""))
        limit = _memory_limit(pod, name)
        if reason not in _ENDS and code == _KILLED and limit and not objects.is_deleted(pod):
            reason = _KILLED_BY_SOMEBODY
        if known := _ENDS.get(reason):
            category, said = known
            said = said.format(name=name, limit=f" of {limit}" if limit else "")
            # Of others it is the end of their log: see the pod's terminationMessagePolicy.
            why = over.get("message") if category == START_FAILED else ""
            return made(category, f"{said}: {why}" if why else said, container=name)
        if objects.is_deleted(pod):
            return made(GONE, "Somebody deleted its pod", container=name)
        category = SCRIPT_FAILED if ran else START_FAILED
        when = "" if ran else ", before the run began"
        return made(category, f"Its container {name} ended with status {code}{when}",
                    container=name)  # fmt: skip
    return None


def _deleted(pod: Object, _: bool) -> Diagnosis | None:
    if not objects.is_deleted(pod):
        return None
    if objects.ended(pod):
        return made(GONE, "Somebody deleted its pod")
    return made(NODE_LOST, "Its pod was deleted and does not end: its node does not answer")


def _failed(pod: Object, ran: bool) -> Diagnosis | None:
    status = objects.status_of(pod)
    if status.get("phase") != "Failed":
        return None
    why = status.get("message") or status.get("reason") or "no reason told"
    return made(SCRIPT_FAILED if ran else START_FAILED, f"Its pod failed: {why}")


def _silent(pod: Object, ran: bool) -> Diagnosis | None:
    """The first node has ended well, and the run goes on in Prefect; the others may end so."""
    if objects.index_of(pod):
        return None
    return made(GONE if ran else START_FAILED, _SILENT)


def _memory_limit(pod: Object, container: str) -> str:
    spec = pod.get("spec") or {}
    for found in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        if found.get("name") == container:
            limits: Object = (found.get("resources") or {}).get("limits") or {}
            return str(limits.get("memory", ""))
    return ""


def _ended_at(pod: Object) -> datetime | None:
    """When the last of the pod's containers ended, or else when the pod was to be gone."""
    states = [container.get("state") or {} for container in objects.containers_of(pod)]
    told = [(state.get("terminated") or {}).get("finishedAt") for state in states]
    times = [at for at in map(objects.time_of, told) if at]
    return max(times, default=objects.time_of(objects.metadata_of(pod).get("deletionTimestamp")))


def gives_up(waiting: Diagnosis, minutes: float, *, nodes: int = 1) -> Diagnosis:
    """What a run is given up with that has waited for so many minutes."""
    message = f"{waiting.message} It was given up after {minutes:g} minutes."
    if waiting.slow:
        return replace(waiting, category=IMAGE_PULL, message=message, hint=_SLOW)
    category = waiting.category or (NODE_NEVER_JOINED if nodes > 1 else START_FAILED)
    return replace(waiting, category=category, message=message, hint=HINTS[category])
