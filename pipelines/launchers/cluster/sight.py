"""What the cluster tells of a run's components: asked once for all that run at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.kubernetes import objects
from infra.kubernetes.api import Api
from pipelines.launchers.cluster.pod import JOB

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """One component, as the cluster tells it.

    Attributes:
        job: Its Job; None if there is none.
        pods: Its pods, the newest last.
    """

    job: Object | None
    pods: tuple[Object, ...]


class Sight:
    """The components of an attempt of a run. Several threads may use it at once."""

    def __init__(self, api: Api, labels: Mapping[str, str], seconds: float) -> None:
        """Look at what has ``labels``, and anew after ``seconds``."""
        self.seconds = seconds
        self._api = api
        self._labels = labels
        self._lock = threading.Lock()
        self._begun = -seconds
        self._found: dict[str, Seen] = {}

    def of(self, name: str, *, after: float = 0.0) -> Seen:
        """A component as it was at ``after`` (of the monotonic clock) or later.

        Raises:
            ClusterError: If the cluster does not answer.
        """
        return self.all(after=after).get(name, Seen(None, ()))

    def all(self, *, after: float = 0.0) -> Mapping[str, Seen]:
        """All components as they were at ``after`` or later, by the names of their Jobs.

        Raises:
            ClusterError: If the cluster does not answer.
        """
        with self._lock:
            now = time.monotonic()
            if self._begun < max(after, now - self.seconds):
                jobs = self._api.list("Job", self._labels)
                pods = self._api.list("Pod", self._labels)
                self._found, self._begun = _sorted(jobs, pods), now
            return self._found


def _sorted(jobs: list[dict[str, Any]], pods: list[dict[str, Any]]) -> dict[str, Seen]:
    found: dict[str, Seen] = {objects.name_of(job): Seen(job, ()) for job in jobs}
    for pod in sorted(
        pods, key=lambda one: str(objects.metadata_of(one).get("creationTimestamp"))
    ):
        name = str((objects.metadata_of(pod).get("labels") or {}).get(JOB))
        old = found.get(name, Seen(None, ()))
        found[name] = Seen(old.job, (*old.pods, pod))
    return found
