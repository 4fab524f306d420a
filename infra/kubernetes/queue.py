"""The queue of runs that wait for what others have: who competes with whom, and who is next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infra.kubernetes import objects
from infra.kubernetes.jobs import Found


@dataclass(frozen=True)
class Place:
    """A run's place in its queue, from 1, and the queue's length."""

    number: int
    length: int

    def __str__(self) -> str:
        return f"Place {self.number} of {self.length} in the queue."


def places(queued: Iterable[Found]) -> Mapping[str, Place]:
    """Each waiting run's place among those that compete with it, by the run's id.

    Runs compete that ask for the same devices on nodes of the same labels. The order is that of
    Kubernetes' scheduler: by priority, then by age. A smaller run may still be placed first,
    where the next one does not fit.
    """
    queues: dict[object, list[tuple[int, str, str]]] = {}
    for one in queued:
        job = one.job or {}
        created = str(objects.metadata_of(job).get("creationTimestamp", ""))
        entry = (-_priority(one), created, one.flow_run_id)
        queues.setdefault(_key(objects.template_of(job)), []).append(entry)
    return {
        run_id: Place(number, len(queue))
        for queue in queues.values()
        for number, (_, _, run_id) in enumerate(sorted(queue), 1)
    }


def _key(template: objects.Object) -> object:
    devices = {
        name
        for container in template.get("containers") or ()
        for name in (container.get("resources") or {}).get("requests") or {}
        if "/" in name
    }
    selector: Mapping[str, str] = template.get("nodeSelector") or {}
    return frozenset(selector.items()), frozenset(devices)


def _priority(found: Found) -> int:
    """The priority that the cluster has given the run's pods; 0 before there is one."""
    told = ((pod.get("spec") or {}).get("priority") for pod in found.own_pods)
    return max((int(one) for one in told if one), default=0)
