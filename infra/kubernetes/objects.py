"""What is asked of Kubernetes' objects, which are plain dicts as the API server gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

Object = Mapping[str, Any]

# A deleted pod that is still there so long after its grace is stuck, or its node is lost.
OVERDUE = timedelta(seconds=5)


def time_of(text: object) -> datetime | None:
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(str(text)) if text else None


def status_of(thing: Object) -> Object:
    """What the cluster tells of an object; empty before it has told anything."""
    return thing.get("status") or {}


def metadata_of(thing: Object) -> Object:
    """An object's name, labels and so on."""
    return thing.get("metadata") or {}


def name_of(thing: Object) -> str:
    """An object's name."""
    return str(metadata_of(thing).get("name", ""))


def condition(thing: Object, kind: str) -> Object | None:
    """The object's condition of this kind, where it is true."""
    found = (c for c in status_of(thing).get("conditions") or () if c.get("type") == kind)
    return next((c for c in found if c.get("status") == "True"), None)


def finished(job: Object) -> bool:
    """Whether the Job is over, well or not."""
    return bool(condition(job, "Complete") or condition(job, "Failed"))


def concluding(job: Object) -> bool:
    """Whether the Job's end is decided, by which its controller ends the pods that go on."""
    kinds = ("SuccessCriteriaMet", "FailureTarget")
    return finished(job) or any(condition(job, kind) for kind in kinds)


def ended(pod: Object) -> bool:
    """Whether all of the pod's containers have ended for good."""
    return status_of(pod).get("phase") in {"Succeeded", "Failed"}


def started(pod: Object) -> bool:
    """Whether one of the pod's own containers has been started."""
    return status_of(pod).get("phase") in {"Running", "Succeeded", "Failed"}


def created_at(thing: Object) -> datetime | None:
    """When the API server has made the object."""
    return time_of(metadata_of(thing).get("creationTimestamp"))


def node_of(pod: Object) -> str:
    """The node that the pod was given; empty before."""
    return str((pod.get("spec") or {}).get("nodeName") or "")


def scheduled_at(pod: Object) -> datetime | None:
    """When the pod was given a node; None if it has none, or that is not said."""
    found = condition(pod, "PodScheduled")
    return time_of(found.get("lastTransitionTime")) if found else None


def template_of(job: Object) -> Object:
    """The spec of the pods that a Job makes."""
    spec = job.get("spec") or {}
    return (spec.get("template") or {}).get("spec") or {}


def is_deleted(thing: Object) -> bool:
    """Whether somebody has asked for the object's end."""
    return bool(metadata_of(thing).get("deletionTimestamp"))


def overdue(pod: Object, now: datetime) -> bool:
    """Whether a deleted pod should have been gone by now.

    The API server sets ``deletionTimestamp`` to the time at which the pod's grace is over.
    """
    until = time_of(metadata_of(pod).get("deletionTimestamp"))
    return until is not None and now > until + OVERDUE


def index_of(pod: Object) -> int:
    """Which node of its run the pod is; 0 where there is one."""
    metadata = metadata_of(pod)
    key = "batch.kubernetes.io/job-completion-index"
    told = (metadata.get("annotations") or {}).get(key, (metadata.get("labels") or {}).get(key))
    return int(told or 0)


def nodes_of(job: Object) -> int:
    """How many nodes the Job asks for."""
    return int((job.get("spec") or {}).get("completions") or 1)


def containers_of(pod: Object) -> Iterator[Object]:
    """What is told of the pod's containers, in their order, those that prepare it first."""
    for key in ("initContainerStatuses", "containerStatuses"):
        yield from status_of(pod).get(key) or ()


def label(thing: Object, name: str) -> str:
    """The value of one of an object's labels; empty if it has no such label."""
    return str((metadata_of(thing).get("labels") or {}).get(name, ""))
