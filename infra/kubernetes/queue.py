"""Queue positions of runs that wait for resources which other runs occupy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infra.kubernetes import objects
from infra.kubernetes.jobs import AttemptStatus


@dataclass(frozen=True)
class QueuePosition:
    """A run's position in its queue, from 1, and the queue's length."""

    number: int
    length: int

    def __str__(self) -> str:
        return f"Place {self.number} of {self.length} in the queue."


def rank_runs(queued: Iterable[AttemptStatus]) -> Mapping[str, QueuePosition]:
    """Compute each waiting run's position among those that compete with it, by run id.

    Runs compete that request the same devices on nodes of the same labels. The order is that of
    Kubernetes' scheduler: by priority, then by age. The scheduler may still place a smaller run
    first, where the next one does not fit.
    """
    queues: dict[object, list[tuple[int, str, str]]] = {}
    for one in queued:
        job = one.job or {}
        created = str(objects.metadata_of(job).get("creationTimestamp", ""))
        entry = (-_priority(one), created, one.flow_run_id)
        queues.setdefault(_key(objects.template_of(job)), []).append(entry)
    return {
        run_id: QueuePosition(number, len(queue))
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


def _priority(found: AttemptStatus) -> int:
    """Priority of the run's pods; 0 before the cluster has assigned one."""
    priorities = ((pod.get("spec") or {}).get("priority") for pod in found.own_pods)
    return max((int(one) for one in priorities if one), default=0)
