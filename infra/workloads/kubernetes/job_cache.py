"""Jobs and pods of a run, listed for all workloads together when one of them has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.controllers import EventNotifier
from infra.kubernetes import objects
from infra.kubernetes.api import Api
from infra.kubernetes.watch import WatchSubscription
from infra.workloads.kubernetes.job_manifest import JOB

_RESYNC_SECONDS = 30.0

Object = Mapping[str, Any]


@dataclass(frozen=True)
class ObservedJob:
    """Job of a workload and its pods, as listed.

    Attributes:
        job: The Job; None if there is none.
        pods: The pods, the newest last.
    """

    job: Object | None
    pods: tuple[Object, ...]


class JobCache:
    """Jobs with certain labels. Several threads may use it at once.

    Attributes:
        seconds: Interval at which its users look, and at which it lists without a watch.
    """

    def __init__(self, api: Api, labels: Mapping[str, str], seconds: float) -> None:
        """Cache what has ``labels``; nothing is asked before it is used."""
        self.seconds = seconds
        self._api = api
        self._labels = labels
        self._lock = threading.Lock()
        self._begun = self._changed = -seconds
        self._found: dict[str, ObservedJob] = {}
        self._notifier: EventNotifier | None = None

    def watch(self) -> None:
        """List when something has changed, instead of at each interval."""
        with self._lock:
            if self._notifier is None:
                self._notifier = EventNotifier(
                    "jobs",
                    self._on_change,
                    [WatchSubscription(self._api, kind, self._labels) for kind in ("Job", "Pod")],
                    resync_seconds=_RESYNC_SECONDS,
                    poll_seconds=self.seconds,
                )

    def close(self) -> None:
        """Watch no more."""
        with self._lock:
            notifier, self._notifier = self._notifier, None
        if notifier is not None:
            notifier.close()

    def _on_change(self) -> None:
        self._changed = time.monotonic()

    def of(self, name: str, *, after: float = 0.0) -> ObservedJob:
        """Job as it was at ``after`` (of the monotonic clock) or later.

        Raises:
            ClusterError: If the cluster does not answer.
        """
        return self.all(after=after).get(name, ObservedJob(None, ()))

    def all(self, *, after: float = 0.0) -> Mapping[str, ObservedJob]:
        """All Jobs as they were at ``after`` or later, by name.

        Raises:
            ClusterError: If the cluster does not answer.
        """
        with self._lock:
            now = time.monotonic()
            changed = self._changed if self._notifier else now - self.seconds
            if self._begun < max(after, changed):
                jobs = self._api.list("Job", self._labels)
                pods = self._api.list("Pod", self._labels)
                self._found, self._begun = _sorted(jobs, pods), now
            return self._found


def _sorted(jobs: list[dict[str, Any]], pods: list[dict[str, Any]]) -> dict[str, ObservedJob]:
    found: dict[str, ObservedJob] = {objects.name_of(job): ObservedJob(job, ()) for job in jobs}
    for pod in sorted(
        pods, key=lambda one: str(objects.metadata_of(one).get("creationTimestamp"))
    ):
        name = str((objects.metadata_of(pod).get("labels") or {}).get(JOB))
        old = found.get(name, ObservedJob(None, ()))
        found[name] = ObservedJob(old.job, (*old.pods, pod))
    return found
