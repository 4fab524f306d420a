"""Accessors of Kubernetes objects, which are plain dicts as the API server returns them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

Object = Mapping[str, Any]

# A deleted pod that exists so long after its grace period is stuck, or its node is lost.
OVERDUE = timedelta(seconds=5)


def time_of(text: object) -> datetime | None:
    """Parse a time of the API."""
    return datetime.fromisoformat(str(text)) if text else None


def status_of(thing: Object) -> Object:
    """Status of an object; empty before the cluster has set it."""
    return thing.get("status") or {}


def metadata_of(thing: Object) -> Object:
    """Metadata of an object."""
    return thing.get("metadata") or {}


def name_of(thing: Object) -> str:
    """Name of an object."""
    return str(metadata_of(thing).get("name", ""))


def condition(thing: Object, kind: str) -> Object | None:
    """Return the object's condition of this type if its status is True."""
    found = (c for c in status_of(thing).get("conditions") or () if c.get("type") == kind)
    return next((c for c in found if c.get("status") == "True"), None)


def is_finished(job: Object) -> bool:
    """Whether the Job is Complete or Failed."""
    return bool(condition(job, "Complete") or condition(job, "Failed"))


def is_concluding(job: Object) -> bool:
    """Whether the Job's outcome is decided, so that its controller ends its active pods."""
    kinds = ("SuccessCriteriaMet", "FailureTarget")
    return is_finished(job) or any(condition(job, kind) for kind in kinds)


def is_ended(pod: Object) -> bool:
    """Whether all of the pod's containers have ended for good."""
    return status_of(pod).get("phase") in {"Succeeded", "Failed"}


def is_started(pod: Object) -> bool:
    """Whether any of the pod's containers, init containers excluded, has started."""
    return status_of(pod).get("phase") in {"Running", "Succeeded", "Failed"}


def created_at(thing: Object) -> datetime | None:
    """Time at which the object was created."""
    return time_of(metadata_of(thing).get("creationTimestamp"))


def node_of(pod: Object) -> str:
    """Name of the pod's node; empty before it is scheduled."""
    return str((pod.get("spec") or {}).get("nodeName") or "")


def scheduled_at(pod: Object) -> datetime | None:
    """Time at which the pod was scheduled; None if it was not, or if unknown."""
    found = condition(pod, "PodScheduled")
    return time_of(found.get("lastTransitionTime")) if found else None


def template_of(job: Object) -> Object:
    """Pod spec of a Job's template."""
    spec = job.get("spec") or {}
    return (spec.get("template") or {}).get("spec") or {}


def is_deleted(thing: Object) -> bool:
    """Whether the object's deletion has been requested."""
    return bool(metadata_of(thing).get("deletionTimestamp"))


def is_overdue(pod: Object, now: datetime) -> bool:
    """Whether a deleted pod has outlived its grace period.

    The API server sets ``deletionTimestamp`` to the time at which the pod's grace is over.
    """
    until = time_of(metadata_of(pod).get("deletionTimestamp"))
    return until is not None and now > until + OVERDUE


def index_of(pod: Object) -> int:
    """Completion index of the pod, the number of its node; 0 for a single node."""
    metadata = metadata_of(pod)
    key = "batch.kubernetes.io/job-completion-index"
    index = (metadata.get("annotations") or {}).get(key, (metadata.get("labels") or {}).get(key))
    return int(index or 0)


def nodes_of(job: Object) -> int:
    """Number of nodes, the Job's completions."""
    return int((job.get("spec") or {}).get("completions") or 1)


def containers_of(pod: Object) -> Iterator[Object]:
    """Statuses of the pod's containers in their order, init containers first."""
    for key in ("initContainerStatuses", "containerStatuses"):
        yield from status_of(pod).get(key) or ()


def container_status(pod: Object, name: str) -> Object:
    """Status of the pod's container of a name; empty if unknown."""
    return next((one for one in containers_of(pod) if one.get("name") == name), {})


def sidecars_of(pod: Object) -> frozenset[str]:
    """Names of the pod's sidecars, which are init containers that are restarted."""
    starting = (pod.get("spec") or {}).get("initContainers") or ()
    return frozenset(
        str(one.get("name", "")) for one in starting if one.get("restartPolicy") == "Always"
    )


def label(thing: Object, name: str) -> str:
    """Value of an object's label; empty if it has no such label."""
    return str((metadata_of(thing).get("labels") or {}).get(name, ""))
